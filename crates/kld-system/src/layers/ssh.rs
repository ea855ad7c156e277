//! SSH on the management plane, when its zone opens port 22; else not at all. Follows sshd_config(5) of OpenSSH 10.

use kld_manifest::Span;
use kld_manifest::model::Plane;

use crate::context::{Context, IDENTITY_UNIT, SSH_PORT};
use crate::distro::package;
use crate::draft::Draft;
use crate::layers::wireguard;
use crate::system::{Because, Enablement, Item, Layer, SystemFile};
use crate::unit_file::{Section, UnitFile};

/// Keys of the manifest's accounts, one file each; a person cannot change them, but may add own ones in `.ssh`.
const AUTHORIZED_KEYS: &str = "/etc/ssh/authorized_keys";

/// The plane SSH listens on, and the line that opens its port; `None` when no line does.
pub(crate) fn listens_on<'a>(context: &Context<'a>) -> Option<(&'a Plane, Span)> {
    let open = |plane: &'a Plane| Some((plane, context.opening(plane, SSH_PORT)?.span));
    context.planes.iter().copied().find_map(open)
}

/// Adds the SSH server, or sees to it that there is none.
pub(crate) fn add(context: &Context<'_>, draft: &mut Draft) {
    let units = &context.distro.units;
    let Some((plane, span)) = listens_on(context) else {
        let asked = |p: &&kld_manifest::Spanned<_>| {
            context.distro.packages.ssh.iter().any(|ssh| package(ssh) == p.value)
        };
        if let Some(installed) = context.appliance.packages.iter().find(asked) {
            let because = Because::new(Layer::Ssh, installed.span, "no plane opens TCP 22");
            draft.unit(&units.ssh, Enablement::Disabled, because.clone());
            draft.unit(&units.ssh_socket, Enablement::Disabled, because);
        }
        return;
    };
    let because = |reason: &str| Because::new(Layer::Ssh, span, reason);
    draft.role(&context.distro.packages.ssh, &because("people come in over the plane"));
    draft.file(config(plane, span));
    for user in &context.appliance.users {
        if user.ssh_keys.is_empty() {
            continue;
        }
        let keys: String = user.ssh_keys.iter().map(|key| format!("{}\n", key.value.trim())).collect();
        let reason = format!("keys that may log in as {}", user.name.value);
        let because = Because::new(Layer::Ssh, user.name.span, reason);
        draft.file(SystemFile::text(format!("{AUTHORIZED_KEYS}/{}", user.name.value), keys, because));
    }
    let mut unit = UnitFile::default();
    wireguard::wait_for_mesh(&mut unit, &because("the address it binds to exists once the mesh is up"));
    unit.add(Section::Unit, "Requires", IDENTITY_UNIT, because("host keys are made at first boot"));
    unit.add(Section::Unit, "After", IDENTITY_UNIT, because("host keys are made at first boot"));
    draft.file(unit.into_file(
        format!("/etc/systemd/system/{}.d/40-kldload-ssh.conf", units.ssh),
        because("SSH starts once its plane is up"),
    ));
    draft.unit(&units.ssh, Enablement::Enabled, because("people come in over the plane"));
    draft.unit(&units.ssh_socket, Enablement::Disabled, because("the socket would listen everywhere"));
}

fn config(plane: &Plane, span: Span) -> SystemFile {
    let address = plane.address.addr().to_string();
    let keys = format!("{AUTHORIZED_KEYS}/%u .ssh/authorized_keys");
    let settings = [
        ("ListenAddress", address.as_str(), "only peers of the plane reach it"),
        ("PasswordAuthentication", "no", "keys only: nothing to guess"),
        ("KbdInteractiveAuthentication", "no", "keys only: nothing to guess"),
        ("PermitRootLogin", "prohibit-password", "root, where it has a key, with that key"),
        ("AuthorizedKeysFile", keys.as_str(), "keys of the manifest are not the account's to change"),
        ("X11Forwarding", "no", "a server has no screen"),
        ("AllowAgentForwarding", "no", "somebody's agent is not used from here"),
        ("MaxAuthTries", "3", "a key works at once or not at all"),
        ("LoginGraceTime", "30", "half-open logins do not pile up"),
    ];
    let mut text = String::from(
        "# SSH on the management plane. Written by kldload; `kldload explain` gives the reason of every line.\n",
    );
    let mut parts = Vec::new();
    for (name, value, reason) in settings {
        text.push_str(&format!("{name} {value}\n"));
        parts.push(Item::new(format!("{name} {value}"), Because::new(Layer::Ssh, span, reason)));
    }
    let because = Because::new(Layer::Ssh, span, format!("SSH listens on {} only", plane.interface.value));
    SystemFile::text("/etc/ssh/sshd_config.d/50-kldload.conf", text, because).with_parts(parts)
}
