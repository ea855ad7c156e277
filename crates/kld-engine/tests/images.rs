//! What must hold of images of containers: there before their units start, or the apply is as if it had never been.

mod support;

use kld_engine::{Engine, Outcome, Plan};
use support::fake::Fake;
use support::{RECIPE, Silent, apply, engine, machine_for, plan_for, take_back, wanted};

const NAMED: &str = "docker.io/library/greeter:1.0";
const PINNED: &str =
    "docker.io/library/greeter@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "docker.io/library/other:2.0";

/// The recipe with a container.
fn container(image: &str) -> String {
    RECIPE.to_owned() + &format!("\ncontainers:\n  - name: greeter\n    image: {image}\n")
}

fn machine(images: &[&str]) -> Fake {
    let fake = machine_for(&[&wanted(&container(NAMED))]);
    images.iter().for_each(|image| fake.publish(image));
    fake
}

fn pulls(plan: &Plan) -> Vec<(&str, Vec<String>)> {
    let pulls = plan.steps.iter().filter(|step| step.kind == "image");
    pulls.map(|step| (step.name.as_str(), step.notes.clone())).collect()
}

#[test]
fn an_image_is_pulled_before_its_unit_starts_and_stays_when_nobody_wants_it() {
    let fake = machine(&[NAMED, PINNED]);
    let plan = plan_for(&fake, &wanted(&container(NAMED)));
    let [(NAMED, notes)] = &pulls(&plan)[..] else { panic!("{plan:#?}") };
    assert!(notes[0].starts_with("not pinned: it is what the registry calls so"), "{notes:?}");
    let step = plan.steps.iter().find(|step| step.kind == "image").expect("there is one");
    let line = RECIPE.lines().count() + 3;
    assert_eq!(step.because.line.map(|line| line as usize), Some(line), "{:?}", step.because);
    apply(&fake, &plan);
    assert!(fake.machine().images.contains(NAMED));
    assert_eq!(
        fake.machine().containers["greeter.service"],
        NAMED,
        "the fake starts no unit without its image"
    );
    assert!(plan_for(&fake, &wanted(&container(NAMED))).is_empty());

    let plan = plan_for(&fake, &wanted(&container(PINNED)));
    assert_eq!(pulls(&plan), [(PINNED, Vec::new())]);
    assert_eq!(
        plan.left.iter().map(|left| left.remove_with.clone()).collect::<Vec<_>>(),
        [format!("podman image rm {NAMED}")]
    );
    apply(&fake, &plan);
    // Somebody has removed it.
    fake.change(|machine| assert!(machine.images.remove(PINNED)));
    let drift = kld_engine::History::new(&fake).drift().expect("readable");
    assert_eq!(drift, [("image".to_owned(), PINNED.to_owned())]);
    fake.change(|machine| assert!(machine.active.remove("greeter.service")));
    let plan = plan_for(&fake, &wanted(&container(PINNED)));
    assert_eq!(plan.steps[0].cause, kld_engine::Cause::Drift);
    let told = plan.restarts.iter().find(|step| step.name == "greeter.service").expect("it was stopped");
    assert_eq!(told.cause, kld_engine::Cause::Drift);
    // Back to what was there before: nothing is pulled, and what was pulled stays and is named, because going forward once more
    // must not need a registry.
    apply(&fake, &plan);
    take_back(&fake);
    let left: Vec<_> = kld_engine::undo(&fake, None).expect("a way back").left;
    assert_eq!(left[0].remove_with, format!("podman image rm {PINNED}"));
    take_back(&fake);
    assert_eq!(fake.machine().images.into_iter().collect::<Vec<_>>(), [NAMED, PINNED]);
    assert_eq!(fake.machine().containers["greeter.service"], NAMED);
}

#[test]
fn an_image_that_is_not_to_be_had_undoes_the_apply() {
    let fake = machine(&[NAMED]);
    apply(&fake, &plan_for(&fake, &wanted(&container(NAMED))));
    let before = fake.machine();
    let plan = plan_for(&fake, &wanted(&container(OTHER)));
    let outcome = Engine::new(&fake).apply(&plan, "tester", None, &|| Ok(()), &mut Silent);
    let Ok(Outcome::RolledBack { what, error, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(what, format!("image {OTHER}"));
    assert!(error.contains("manifest unknown"), "{error}");
    assert!(fake.machine() == before);
}

#[test]
fn a_machine_that_dies_while_it_pulls_has_the_images_it_had() {
    let begin = || {
        let fake = machine(&[NAMED, OTHER]);
        apply(&fake, &plan_for(&fake, &wanted(&container(NAMED))));
        let plan = plan_for(&fake, &wanted(&container(OTHER)));
        (fake, plan)
    };
    let (fake, plan) = begin();
    let before = fake.machine();
    let start = fake.changes();
    apply(&fake, &plan);
    let (after, length) = (fake.machine(), fake.changes() - start);
    assert!(after.images.contains(OTHER));
    let mut as_planned = 0;
    for fuel in 0..=length {
        let (fake, plan) = begin();
        fake.fuel(Some(fuel));
        let _ = engine(&fake).apply(&plan, "tester", None, &|| Ok(()), &mut Silent);
        fake.fuel(Some(fuel % 5));
        let _ = engine(&fake).recover(&mut Silent);
        fake.fuel(None);
        engine(&fake).recover(&mut Silent).expect("it goes back");
        let now = fake.machine();
        assert!(now == before || now == after, "{fuel} of {length}: {:?} {:?}", now.images, now.active);
        as_planned += usize::from(now == after);
    }
    assert!(as_planned >= 1 && as_planned < length / 2, "{as_planned} of {length}");
    // A proof that fails after the unit has started with it.
    let (fake, plan) = begin();
    let fail = || Err("it does not greet".to_owned());
    engine(&fake).apply(&plan, "tester", None, &fail, &mut Silent).expect("it goes back");
    assert!(fake.machine() == before);
    // Somebody else runs it by now: it stays.
    let (fake, plan) = begin();
    let used = || {
        fake.change(|machine| drop(machine.containers.insert("somebody's".to_owned(), OTHER.to_owned())));
        Err("it does not greet".to_owned())
    };
    engine(&fake).apply(&plan, "tester", None, &used, &mut Silent).expect("it goes back");
    assert!(fake.machine().images.contains(OTHER));
}

#[test]
fn a_machine_without_containers_is_not_asked_about_images() {
    let fake = machine(&[]);
    fake.take_log();
    plan_for(&fake, &wanted(RECIPE));
    assert!(fake.take_log().iter().all(|command| !command.starts_with("podman")));
}
