# Packets on their way through the rules of this namespace. Prints the numbers of those that nothing has stopped.
import ctypes, json, pwd, re, socket, struct, subprocess

given = json.load(open("/tmp/packets.json"))
interfaces, packets = given["interfaces"], given["packets"]
# Answers of the kernel carry a zero where packets carry their number.
numbered = list(enumerate(packets, start=1))
libc = ctypes.CDLL(None)


def run(*words, text=None):
    return subprocess.run(words, check=True, input=text, capture_output=True, text=True).stdout


def put(path, value):
    with open("/proc/sys/net/" + path, "w") as file:
        file.write(value)


# Machines have addresses at once here, take packets from anywhere, and pass them on as far as the rules let them.
for name in ("all", "default"):
    put(f"ipv4/conf/{name}/rp_filter", "0")
    put(f"ipv6/conf/{name}/forwarding", "1")
    put(f"ipv6/conf/{name}/accept_dad", "0")
    put(f"ipv6/conf/{name}/accept_ra", "0")
put("ipv4/ip_forward", "1")
lines = ["link set lo up"]
for number, name in enumerate(interfaces):
    lines.append(f"link add {name} address 02:00:00:00:01:{number:02x} type veth peer name far{number}")
    # Nobody is asked for an address: the far ends belong to nobody.
    lines += [f"link set {name} arp off up", f"link set far{number} arp off up"]
own = {packet["to"] for packet in packets if packet["way"] == "in" and packet["came"] != "lo"}
for address in sorted(own):
    lines.append(f"address add {address}/{128 if ':' in address else 32} dev lo" + (" nodad" if ":" in address else ""))
run("ip", "-batch", "-", text="\n".join(lines))
for number, name in enumerate(interfaces):
    for end in (name, f"far{number}"):
        put(f"ipv4/conf/{end}/rp_filter", "0")

run("nft", "-f", "/etc/nftables.conf")
probe = ["table inet probe {"]
for way, hook in (("in", "input"), ("out", "output"), ("through", "forward")):
    probe.append(f"set {way} {{ typeof @th,64,16; flags dynamic; size 65535; timeout 1h; }}")
    probe.append(f"chain {way} {{ type filter hook {hook} priority 100; policy accept;")
    probe.append(f"meta l4proto {{ tcp, udp }} update @{way} {{ @th,64,16 }}; }}")
probe.append("chain published { type nat hook prerouting priority dstnat; policy accept;")
for packet in packets:
    if packet["published"]:
        protocol = "tcp" if packet["tcp"] else "udp"
        probe.append(f"{protocol} sport {packet['sport']} dnat ip to {packet['to']}:{packet['port']}")
run("nft", "-f", "-", text="\n".join(probe) + "\n}\n}\n")


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def build(number, packet, to, port):
    family = socket.AF_INET6 if ":" in packet["from"] else socket.AF_INET
    source, destination = (socket.inet_pton(family, address) for address in (packet["from"], to))
    if packet["tcp"]:
        protocol, at = 6, 16
        body = struct.pack("!HHIHHBBHHH", packet["sport"], port, 1, number, 0, 5 << 4, 2, 1024, 0, 0)
    else:
        protocol, at = 17, 6
        body = struct.pack("!HHHHH", packet["sport"], port, 10, 0, number)
    rest = struct.pack("!IHBB", len(body), 0, 0, protocol)
    # Zero means that there is none.
    total = checksum(source + destination + rest + body) or 0xFFFF
    body = body[:at] + struct.pack("!H", total) + body[at + 2 :]
    if family == socket.AF_INET6:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + source + destination + body
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0, source, destination)
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def socket_of(packet, kinds={}):
    family = socket.AF_INET6 if ":" in packet["to"] else socket.AF_INET
    number = packet["number"]
    if number is None:
        number = pwd.getpwnam(packet["sender"]).pw_uid
    if (family, number) not in kinds:
        # A socket belongs to whom files would belong to; nothing else of root's is given away.
        libc.setfsuid(number)
        kinds[family, number] = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        libc.setfsuid(0)
    return kinds[family, number]


wires = {}
for number, name in enumerate(interfaces):
    wires[name] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wires[name].bind((f"far{number}", 0))
routes = {}
for number, packet in sorted(numbered, key=lambda of: (of[1]["to"], of[1]["leaves"])):
    leaves, to, port = packet["leaves"], packet["to"], packet["port"]
    if leaves not in ("", "lo") and routes.get(to) != leaves:
        run("ip", "route", "replace", f"{to}/{128 if ':' in to else 32}", "dev", leaves)
        routes[to] = leaves
    if packet["came"] in ("", "lo"):
        try:
            socket_of(packet).sendto(build(number, packet, to, port), (to, 0))
        except PermissionError:
            pass  # What the rules stop, its sender is told.
        continue
    if packet["published"]:
        # A port of the machine.
        to, port = "198.51.100.1", 9
    kind = b"\x86\xdd" if ":" in packet["from"] else b"\x08\x00"
    near = bytes.fromhex("0200000001%02x" % interfaces.index(packet["came"]))
    wires[packet["came"]].send(near + bytes.fromhex("020000000200") + kind + build(number, packet, to, port))

import time

time.sleep(1)
for way in ("in", "out", "through"):
    seen = run("nft", "list", "set", "inet", "probe", way)
    of_way = {number for number, packet in numbered if packet["way"] == way}
    numbers = {int(text, 0) for text in re.findall(r"(0x[0-9a-f]+|\d+) (?:timeout|expires)", seen)}
    print(*sorted(numbers & of_way))
