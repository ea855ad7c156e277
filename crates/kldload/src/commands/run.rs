//! `kldload run`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kld_build::Lock;
use kld_host::{Cmd, atomic_write};
use kld_system::{DistroSpec, NODE_CONFIG_PATH, NodeConfig, NodePlane, known_distros};
use kld_ui::{ExitStatus, Hinted, Phases, Printer};
use kld_vm::{Accel, Credential, Disk, DiskFormat, Guest, Mac, Nic, Vm, VmError};

use crate::{lock_file, signals};

use super::build::{Format, How, What, build};
use super::seconds::seconds;

/// Boot an image or a manifest in a virtual machine, prove it, and show how to get in
///
/// QEMU with UEFI; KVM when it truly works, else emulation. Only the WireGuard port is forwarded, on the
/// loopback of this machine. The image itself is not changed: what the machine writes is gone when it ends.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kldload run recipes/webapp/appliance.manifest\n  kldload run webapp.img --memory 4096\n  kldload run webapp.img --once        boot, verify, power off; exit code 0 when all is well"
)]
pub(crate) struct Args {
    /// An image (raw or qcow2) or a manifest, which is built first
    what: PathBuf,
    #[command(flatten)]
    how: How,
    /// Boot, verify, power off
    #[arg(long)]
    once: bool,
    /// Memory in MiB
    #[arg(long, default_value_t = 2048, value_name = "MIB")]
    memory: u32,
    /// Processors
    #[arg(long, default_value_t = 2, value_name = "N")]
    cpus: u32,
    /// UDP port on 127.0.0.1 that leads to the machine's WireGuard; 0 takes a free one
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    port: u16,
    /// Public SSH key that may log in as root over the mesh; by default the first of ~/.ssh/*.pub
    #[arg(long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    /// Give up when the machine is not well after this time
    #[arg(long, default_value = "900s", value_name = "TIME", value_parser = seconds)]
    deadline: u64,
}

/// Name of the WireGuard configuration for the person's side.
const CLIENT_CONF: &str = "kldload.conf";
/// Not for a browser: how to log in is said on a line of its own.
const SSH_PORT: u16 = 22;
/// The version of systemd that takes `systemd.extra-unit.*`, systemd.system-credentials(7).
const UNITS_FROM_FIRMWARE: u32 = 256;
/// Between two looks at a machine that comes up.
const POLL: Duration = Duration::from_secs(3);
/// How long a shutdown may take before the power is cut.
const SHUTDOWN: Duration = Duration::from_secs(120);

/// Boots it.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let (image, format) = image_of(printer, args)?;
    let port = if args.port == 0 {
        kld_vm::free_udp_port().context("cannot find a free UDP port")?
    } else {
        args.port
    };
    let mut vm = Vm::new()
        .memory_mib(args.memory)
        .cpus(args.cpus)
        .disk(Disk::new(&image, format).overlay().volatile())
        .nic(Nic::user(Mac::numbered(1), port, 51820));
    let ssh_key = ssh_key(args)?;
    if let Some((_, key)) = &ssh_key {
        // systemd.system-credentials(7): provisioned by systemd-tmpfiles.
        vm = vm.credential(Credential::new("ssh.authorized_keys.root", key.as_bytes().to_vec()));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    signals::watch(move || asked.store(true, Ordering::Relaxed))?;

    let phases = Phases::new(printer, 2);
    let deadline = Instant::now() + Duration::from_secs(args.deadline);
    let guest = match boot(printer, &phases, args, &vm, deadline) {
        // KVM may give a guest up that it has started.
        Err(VmError::Stopped { status, .. }) if status == "internal-error" => {
            printer.warning("KVM has given the machine up: it starts once more under software emulation");
            boot(printer, &phases, args, &vm.accel(Accel::Tcg), deadline)
        }
        other => other,
    };
    let guest = guest.with_context(|| format!("`{}` does not boot", image.display()))?;
    let phase = phases.start("wait until all is well");
    let health = wait_until_well(&guest, &phase, deadline, &stop)?;
    if health.well {
        phase.finish()
    } else {
        phase.fail()
    }
    drop(phases);

    printer.data(&health.text)?;
    if !health.well {
        let hint = format!(
            "look around with `kldload run {} --deadline 3600`, or read the console above",
            args.what.display()
        );
        return Err(Hinted::new("the machine is not well", hint).into());
    }
    if let Some(node) = &health.node {
        let client = prepare_client(&guest, node, port)?;
        say_how_to_get_in(printer, node, client.as_deref(), ssh_key.as_ref(), port);
    }
    if !args.once {
        printer.note("running; Ctrl-C powers it off");
        while !stop.load(Ordering::Relaxed) && guest.is_running() {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    guest.shutdown(SHUTDOWN).context("cannot power the machine off")?;
    Ok(ExitStatus::Done)
}

/// Starts it and waits until it answers.
fn boot(
    printer: &Printer,
    phases: &Phases,
    args: &Args,
    vm: &Vm,
    deadline: Instant,
) -> Result<Guest, VmError> {
    let guest = vm.start()?;
    printer.note(&format!("machine: {} MiB, {} processors, {}", args.memory, args.cpus, guest.accel()));
    let phase = phases.start("boot");
    let left = deadline.saturating_duration_since(Instant::now());
    match guest.wait_control(left, |line| phase.message(line)) {
        Ok(()) => phase.finish(),
        Err(error) => {
            phase.fail();
            return Err(error);
        }
    }
    Ok(guest)
}

/// The image to boot: the one given, or one built from the manifest given.
fn image_of(printer: &Printer, args: &Args) -> anyhow::Result<(PathBuf, DiskFormat)> {
    let path = &args.what;
    if let Some(distro) = distro_of(path) {
        can_be_asked(&distro)?;
    }
    let mut head = [0u8; 4];
    let read = fs::File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut head));
    let read = read.with_context(|| format!("cannot read `{}`", path.display()))?;
    if read == 4 && &head == b"QFI\xfb" {
        return Ok((path.clone(), DiskFormat::Qcow2));
    }
    let is_image = fs::metadata(path).is_ok_and(|meta| meta.len() > 64 << 20);
    if is_image {
        return Ok((path.clone(), DiskFormat::Raw));
    }
    let target = What::of_manifest(path.clone(), args.how.clone()).target(printer)?;
    can_be_asked(&target.system.distro)?;
    let name = target.system.host_name.as_ref().map_or_else(|| "kldload".to_owned(), ToString::to_string);
    let dir = args.how.cache_root().join("run");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
    let image = dir.join(format!("{name}.img"));
    build(printer, &args.how, &target, &image, Format::Raw)?;
    Ok((image, DiskFormat::Raw))
}

/// What an image was made from, or a manifest is pinned to, when its lock file lies beside it.
fn distro_of(image: &Path) -> Option<DistroSpec> {
    let lock = Lock::parse(&fs::read_to_string(lock_file::beside(image)?).ok()?).ok()?;
    known_distros().into_iter().find(|distro| distro.label() == lock.distro)
}

/// Nothing in an image lets anybody in: the channel is a unit that systemd takes from the firmware, since version 256.
fn can_be_asked(distro: &DistroSpec) -> anyhow::Result<()> {
    let (name, version) = (&distro.name, distro.systemd_version);
    if version >= UNITS_FROM_FIRMWARE {
        return Ok(());
    }
    let what = format!(
        "cannot look into a machine of {name}: its systemd {version} takes no units from the firmware, {UNITS_FROM_FIRMWARE} is the first"
    );
    let hint =
        "`kldload build` makes the image; start it with your own hypervisor, and look at it with `kst` there";
    Err(Hinted::new(what, hint).into())
}

/// The key that may log in, with the file it came from.
fn ssh_key(args: &Args) -> anyhow::Result<Option<(PathBuf, String)>> {
    let path = match &args.ssh_key {
        Some(path) => path.clone(),
        None => match first_public_key() {
            Some(path) => path,
            None => return Ok(None),
        },
    };
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read the SSH key `{}`", path.display()))?;
    if text.contains("PRIVATE KEY") {
        let hint = format!("give the public key: `--ssh-key {}.pub`", path.display());
        return Err(Hinted::new(format!("`{}` is a private key", path.display()), hint).into());
    }
    Ok(Some((path, text)))
}

fn first_public_key() -> Option<PathBuf> {
    let dir = PathBuf::from(std::env::var_os("HOME")?).join(".ssh");
    let mut keys: Vec<PathBuf> = fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "pub"))
        .collect();
    keys.sort();
    keys.into_iter().next()
}

/// What the machine says of itself.
struct Health {
    well: bool,
    text: String,
    node: Option<NodeConfig>,
}

/// Asks until it is well, or until time is up; then the last answer stands.
fn wait_until_well(
    guest: &Guest,
    phase: &kld_ui::Phase,
    deadline: Instant,
    stop: &AtomicBool,
) -> anyhow::Result<Health> {
    let node = match guest.run(&format!("cat {NODE_CONFIG_PATH}")) {
        Ok(output) if output.is_ok() => {
            Some(NodeConfig::parse(&output.text()).context("the machine's description is not understood")?)
        }
        Ok(_) => None,
        Err(error) => return Err(error.into()),
    };
    // A core image holds nothing of kldload: its own tools answer.
    let ask = if node.is_some() {
        "kst"
    } else {
        "systemctl is-system-running; zpool status -x; zfs list -o name,used,avail,mountpoint"
    };
    let settled = "systemctl is-system-running";
    loop {
        let running = guest.run(settled)?.text().trim().to_owned();
        phase.message(&running);
        let starting = matches!(running.as_str(), "initializing" | "starting" | "");
        if !starting || Instant::now() > deadline {
            let answer = guest.run_for(ask, Duration::from_secs(120))?;
            let well = if node.is_some() { answer.is_ok() } else { running == "running" };
            if well || Instant::now() > deadline || stop.load(Ordering::Relaxed) {
                return Ok(Health { well, text: answer.text() + &answer.error_text(), node });
            }
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(Health { well: false, text: "interrupted\n".to_owned(), node });
        }
        std::thread::sleep(POLL);
    }
}

/// Makes a key pair for the person's side, tells the machine its public half, and writes a configuration for
/// `wg-quick`. Without `wg` on this machine there is none.
fn prepare_client(guest: &Guest, node: &NodeConfig, port: u16) -> anyhow::Result<Option<PathBuf>> {
    let Some(plane) = node.planes.iter().find(|plane| plane.carrier.is_none()) else { return Ok(None) };
    let Ok(private) = Cmd::new("wg").arg("genkey").stdout_string() else { return Ok(None) };
    let public = Cmd::new("wg").arg("pubkey").stdin_bytes(private.as_bytes()).stdout_string()?;
    let address = client_address(plane).context("the plane has no room for another address")?;
    let machine_key = guest
        .run_ok(&format!("wg show {} public-key", plane.interface))
        .context("cannot read the machine's WireGuard key")?;
    guest
        .run_ok(&format!("wg set {} peer '{}' allowed-ips {address}", plane.interface, public.trim()))
        .context("cannot add this machine as a WireGuard peer")?;
    let text = format!(
        "# For wg-quick(8). Made by `kldload run`; good until the machine ends.\n\
         [Interface]\nPrivateKey = {}\nAddress = {address}\n\n\
         [Peer]\nPublicKey = {}\nAllowedIPs = {}\nEndpoint = 127.0.0.1:{port}\nPersistentKeepalive = 25\n",
        private.trim(),
        machine_key.trim(),
        plane.address.trunc(),
    );
    let path = guest.work_folder().join(CLIENT_CONF);
    atomic_write(&path, text.as_bytes(), 0o600)?;
    Ok(Some(path))
}

/// The last address of the plane's network that a host may have, unless the machine or a peer has it.
fn client_address(plane: &NodePlane) -> Option<ipnet::IpNet> {
    let taken = |ip: &std::net::IpAddr| {
        *ip == plane.address.addr()
            || plane.peers.iter().flat_map(|peer| &peer.allowed_ips).any(|net| net.contains(ip))
    };
    // The last 64 are enough to look at, and an IPv6 network has too many to list.
    let free = match plane.address {
        ipnet::IpNet::V4(net) => {
            let last = u32::from(net.broadcast()).checked_sub(1)?;
            let first = u32::from(net.network()) + 1;
            (first.max(last.saturating_sub(63))..=last)
                .rev()
                .map(|ip| std::net::IpAddr::V4(ip.into()))
                .find(|ip| !taken(ip))?
        }
        ipnet::IpNet::V6(net) => {
            let last = u128::from(net.broadcast()).checked_sub(1)?;
            let first = u128::from(net.network()) + 1;
            (first.max(last.saturating_sub(63))..=last)
                .rev()
                .map(|ip| std::net::IpAddr::V6(ip.into()))
                .find(|ip| !taken(ip))?
        }
    };
    let prefix = if free.is_ipv4() { 32 } else { 128 };
    ipnet::IpNet::new(free, prefix).ok()
}

fn say_how_to_get_in(
    printer: &Printer,
    node: &NodeConfig,
    client: Option<&Path>,
    ssh_key: Option<&(PathBuf, String)>,
    port: u16,
) {
    let Some(plane) = node.planes.iter().find(|plane| plane.carrier.is_none()) else { return };
    let address = plane.address.addr();
    for service in &node.services {
        for listen in service
            .listens
            .iter()
            .filter(|l| l.interface == plane.interface && l.protocol == "tcp" && l.port != SSH_PORT)
        {
            printer.note(&format!("open:     http://{address}:{}   ({})", listen.port, service.unit));
        }
    }
    match client {
        Some(path) => printer.note(&format!("connect:  sudo wg-quick up {}", path.display())),
        None => printer.note(&format!("connect:  WireGuard at 127.0.0.1:{port} (install wireguard-tools, and this writes a configuration for you)")),
    }
    match ssh_key {
        Some((path, _)) => printer.note(&format!("log in:   ssh root@{address}   (with the key of {})", path.display())),
        None => printer.note("log in:   give a public key with `--ssh-key FILE`, then `ssh root@ADDRESS`; there are no passwords"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(address: &str, peers: &[&str]) -> NodePlane {
        NodePlane {
            interface: "wg0".to_owned(),
            address: address.parse().expect("an address"),
            port: 51820,
            carrier: None,
            key_file: "/etc/kldload/wireguard/wg0.key".to_owned(),
            peers: peers
                .iter()
                .map(|ip| kld_system::NodePeer {
                    name: "x".to_owned(),
                    public_key: String::new(),
                    allowed_ips: vec![ip.parse().expect("a network")],
                    endpoint: None,
                    keepalive_seconds: None,
                })
                .collect(),
        }
    }

    #[test]
    fn the_person_gets_the_last_free_address() {
        let address = |net, peers: &[&str]| client_address(&plane(net, peers)).map(|ip| ip.to_string());
        assert_eq!(address("10.8.0.1/24", &[]).as_deref(), Some("10.8.0.254/32"));
        assert_eq!(address("10.8.0.254/24", &["10.8.0.253/32"]).as_deref(), Some("10.8.0.252/32"));
        assert_eq!(address("10.8.0.1/30", &[]).as_deref(), Some("10.8.0.2/32"));
        assert_eq!(address("10.8.0.1/30", &["10.8.0.2/32"]), None);
        assert_eq!(address("fd00::1/64", &[]).as_deref(), Some("fd00::ffff:ffff:ffff:fffe/128"));
    }
}
