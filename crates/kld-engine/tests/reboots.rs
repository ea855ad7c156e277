//! What a plan says of what it interrupts, and of what it leaves to a start of the machine.

mod support;

use expect_test::expect_file;
use kld_engine::{Entry, Host as _, Interruption, Node, Plan, Wanted, waits_for_reboot};
use kld_system::Layer;
use serde_json::Value;
use support::fake::{Deb, Fake};
use support::{RECIPE, applied, changed, machine_for, plan_for, wanted};

const STATUS: &str = "/var/lib/dpkg/status";

fn write(fake: &Fake, path: &str, text: &str) {
    let entry = Entry { node: Node::File(text.as_bytes().to_vec()), mode: 0o644, uid: 0, gid: 0 };
    fake.put(path, &entry).expect("written");
}

/// As images have it: the kernel by its exact release.
fn install_what_it_starts_from(fake: &Fake, wanted: &Wanted) {
    let boot = wanted.system.packages.iter().filter(|item| item.because.layer == Layer::Boot);
    let names = boot.map(|item| item.value.as_str().replace("image-amd64", "image-6.12.57+deb13-amd64"));
    let status = names.fold(fake.text(STATUS), |status, name| status + &name + " 1.0\n");
    write(fake, STATUS, &status);
}

fn left_to_a_start(plan: &Plan) -> Vec<(&str, &str)> {
    plan.at_start.iter().map(|item| (item.name.as_str(), item.with.as_str())).collect()
}

/// The page of `kldload plan` is made of this (`kldload/src/commands/plan/page.rs`).
#[test]
fn the_plan_of_the_changed_recipe_is_as_it_was() {
    let (fake, _, new) = applied();
    install_what_it_starts_from(&fake, &new);
    let plan = plan_for(&fake, &new);
    let mut json = serde_json::to_value(&plan).expect("plain data");
    // What a page does not show: content, digests.
    for list in ["steps", "restarts", "memory"] {
        for step in json[list].as_array_mut().expect("a list") {
            step["change"] = Value::Null;
        }
    }
    json["items"] = serde_json::json!({});
    let text = serde_json::to_string_pretty(&json).expect("plain data") + "\n";
    expect_file!["snapshots/changed.json"].assert_eq(&text);
}

#[test]
fn every_interruption_has_its_word() {
    let (fake, ..) = applied();
    let moved = changed().replace("mountpoint=/var/lib/postgresql", "mountpoint=/srv/postgresql");
    let plan = plan_for(&fake, &wanted(&moved));
    let of = |kind: &str, part: &str| {
        let step = plan.all().find(|step| step.kind == kind && step.summary.contains(part));
        step.unwrap_or_else(|| panic!("{kind} {part}: {plan:#?}")).interrupts
    };
    assert_eq!(of("dataset", "mountpoint /"), Some(Interruption::Remount));
    assert_eq!(of("dataset", "recordsize"), None);
    assert_eq!(of("service", "starts again"), Some(Interruption::Restart));
    assert_eq!(of("service", "reads its configuration again"), Some(Interruption::Reload));
    assert!(!plan.needs_reboot());
}

#[test]
fn a_package_that_a_start_takes_into_use_says_reboot() {
    let microcode = wanted(&RECIPE.replace("packages:  curl,", "packages:  curl, fast-thing,"));
    let fake = machine_for(&[&microcode]);
    // It comes along with something else.
    fake.change_archive(|archive| {
        archive.insert("amd64-microcode".to_owned(), Deb::default());
        archive.get_mut("fast-thing").expect("it is there").depends = vec!["amd64-microcode"];
    });
    let plan = plan_for(&fake, &microcode);
    let step = plan.steps.iter().find(|step| step.kind == "package").expect("packages come");
    assert_eq!(step.interrupts, Some(Interruption::Reboot));
    let note = step.notes.iter().find(|note| note.starts_with("reboot: ")).expect("it is said");
    assert!(note.contains("`amd64-microcode`") && note.contains("`kpkg install "), "{note}");
    assert!(plan.needs_reboot());
    // Each of several packages with its own line.
    assert!(step.notes.iter().any(|note| note.starts_with("`fast-thing` (line ")), "{step:#?}");
}

#[test]
fn what_a_machine_starts_from_is_left_alone_and_named() {
    let recipe = wanted(RECIPE);
    let fake = machine_for(&[&recipe]);
    let plan = plan_for(&fake, &recipe);
    let [(names, with)] = left_to_a_start(&plan)[..] else { panic!("{:#?}", plan.at_start) };
    assert!(names.contains("zfs-initramfs") && names.contains("linux-image-amd64"), "{names}");
    assert!(with.starts_with("`kpkg install ") && with.contains("`reboot`"), "{with}");

    install_what_it_starts_from(&fake, &recipe);
    assert_eq!(left_to_a_start(&plan_for(&fake, &recipe)), []);

    // Arguments of the kernel that a line of the manifest asks for, where it can be known that they are missing.
    write(&fake, "/proc/cmdline", "root=ZFS=rpool/ROOT/debian rw quiet\n");
    let plan = plan_for(&fake, &recipe);
    let argument = plan.at_start.iter().find(|item| item.kind == "kernel argument");
    let by_name = recipe.system.kernel_args.iter().find(|argument| argument.because.span.is_written());
    assert_eq!(argument.map(|item| item.name.as_str()), by_name.map(|argument| argument.value.as_str()));
    write(&fake, "/proc/cmdline", "quiet net.ifnames=0\n");
    assert_eq!(left_to_a_start(&plan_for(&fake, &recipe)), []);
}

#[test]
fn what_packages_have_asked_for_before_is_said() {
    let recipe = wanted(RECIPE);
    let fake = machine_for(&[&recipe]);
    assert_eq!(waits_for_reboot(&fake).expect("readable"), None);
    write(&fake, "/run/reboot-required", "*** System restart required ***\n");
    assert_eq!(waits_for_reboot(&fake).expect("readable"), Some(vec![]));
    write(&fake, "/run/reboot-required.pkgs", "dbus\nlibc6\ndbus\n");
    assert_eq!(waits_for_reboot(&fake).expect("readable"), Some(vec!["dbus".to_owned(), "libc6".to_owned()]));
    let plan = plan_for(&fake, &recipe);
    assert!(left_to_a_start(&plan).contains(&("dbus, libc6", "`reboot`")), "{:#?}", plan.at_start);
}
