# Runs in the guest as kldload-control.service. One request a line: run NONCE SECONDS BASE64 end
# One reply a line: done NONCE STATUS STDOUT STDERR end, both base64 after a "=" so that empty is a word too.
work=/run/kldload-control
mkdir -p -m 700 "$work"
cd /
# The port by its name in sysfs: udev's link to it appears only when everything before it has been probed.
find_port() {
  for file in /sys/class/virtio-ports/*/name; do
    if read -r name 2>/dev/null <"$file" && [ "$name" = kldload.control ]; then
      port=/dev/$(basename "${file%/name}")
      [ -c "$port" ] && return 0
    fi
  done
  return 1
}
modprobe -q virtio_console; until find_port; do sleep 0.1; done
exec 3<>"$port"
while :; do
  # A line without its end was cut off when its sender went away: it must not run.
  while IFS=' ' read -r verb nonce seconds body end <&3; do
    [ "$verb" = run ] && [ "$end" = end ] || continue
    base64 -d <<<"$body" >"$work/script"
    timeout --kill-after=5 "$seconds" bash "$work/script" </dev/null >"$work/out" 2>"$work/err" 3>&-
    status=$?
    printf 'done %s %s =%s =%s end\n' "$nonce" "$status" "$(base64 -w0 "$work/out")" "$(base64 -w0 "$work/err")" >&3
  done
  # Nobody is connected: reads return at once until somebody is.
  sleep 0.2
done
