//! What must hold whatever happens while a directory becomes a dataset: its content is where it was, and nothing that
//! anybody writes meanwhile is lost.

mod support;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kld_engine::{AdoptError, Adopter, Adoption, Entry, Node, Stage, User, Watch, Wish};
use support::land::{Land, PATH, file};

struct Silent;

impl Watch for Silent {
    fn doing(&mut self, _: &str) {}
    fn warn(&mut self, _: &str) {}
}

fn wish() -> Wish {
    Wish { path: PATH.to_owned(), ..Wish::default() }
}

fn adopt(land: &Land, stop: bool) -> Result<Adoption, AdoptError> {
    let adopter = Adopter::new(land);
    let prospect = adopter.look(&wish())?;
    adopter.adopt(&prospect, "tester", stop, &mut Silent)
}

fn stage(land: &Land) -> Option<Stage> {
    Adopter::new(land).all().expect("readable").last().map(|(_, stage)| *stage)
}

fn user() -> User {
    User {
        name: "gunicorn".to_owned(),
        process: Some(7),
        unit: Some("webapp.service".to_owned()),
        does: "has /srv/app/a open".to_owned(),
    }
}

/// A machine whose directory a service uses, or none.
fn land(exchanges: bool, used: bool) -> Land {
    let land = Land::new(exchanges);
    if used {
        land.state().users.push(user());
    }
    land
}

/// The directory is in its place, and there is no sign of anything else.
fn assert_as_before(land: &Land, when: &str) {
    assert_eq!(land.seen(PATH), Land::new(true).seen(PATH), "{when}");
    assert_eq!(land.beside(), ["app"], "{when}");
    assert_eq!(land.mounted(), [], "{when}");
    assert_eq!(land.state().datasets.keys().collect::<Vec<_>>(), ["rpool", "rpool/srv"], "{when}");
    assert!(land.state().active.contains("webapp.service"), "{when}: the service runs");
}

/// The dataset is in its place with the same content, and the directory is kept beside it.
fn assert_adopted(land: &Land, when: &str) {
    let want = Land::new(true).seen(PATH);
    assert_eq!(land.seen(PATH), want, "{when}");
    assert_eq!(land.mounted(), [(PATH.to_owned(), "rpool/srv/app".to_owned())], "{when}");
    let (adoption, _) = Adopter::new(land).all().expect("readable").pop().expect("there is one");
    assert_eq!(land.seen(&adoption.aside), want, "{when}");
    assert_eq!(land.beside().len(), 2, "{when}: {:?}", land.beside());
    let state = land.state();
    let own = &state.datasets["rpool/srv/app"];
    assert_eq!((own["canmount"].as_str(), own["mountpoint"].as_str()), ("on", PATH), "{when}");
    assert!(state.active.contains("webapp.service"), "{when}: the service runs");
}

#[test]
fn a_directory_is_adopted_brought_back_adopted_again_and_confirmed() {
    for exchanges in [true, false] {
        let land = land(exchanges, true);
        let in_use = adopt(&land, false).expect_err("somebody uses it");
        assert!(
            in_use.to_string().contains("gunicorn (process 7) of webapp.service has /srv/app/a open"),
            "{in_use}"
        );
        assert_as_before(&land, "refused");
        let adoption = adopt(&land, true).expect("it is adopted");
        assert_eq!(adoption.dataset, "rpool/srv/app");
        assert_adopted(&land, "adopted");
        let again = adopt(&land, true).expect_err("it is one already");
        assert!(again.to_string().contains("`rpool/srv/app` is mounted on it already"), "{again}");
        let adopter = Adopter::new(&land);
        assert!(!adopter.look_back(PATH).expect("it can go back").is_changed);
        assert_eq!(adopter.take_back(PATH, false, &mut Silent).expect("it goes back"), Vec::<String>::new());
        assert_as_before(&land, "taken back");
        assert!(matches!(adopter.take_back(PATH, false, &mut Silent), Err(AdoptError::NotWaiting { .. })));
        adopt(&land, true).expect("it is adopted again");
        adopter.confirm(PATH).expect("it stays");
        assert_eq!(land.beside(), ["app"]);
        assert_eq!(land.seen(PATH), Land::new(true).seen(PATH));
        assert!(!land.state().datasets["rpool/srv/app"].contains_key("org.kldload:adoption"));
        assert!(matches!(adopter.confirm(PATH), Err(AdoptError::NotWaiting { .. })));
        let stages: Vec<Stage> = adopter.all().expect("readable").iter().map(|(_, stage)| *stage).collect();
        assert_eq!(stages, [Stage::TakenBack, Stage::Confirmed]);
    }
}

/// How a machine dies: the program is killed, or the power fails and the next start knows the dataset or does not yet.
const DEATHS: [Option<bool>; 3] = [None, Some(true), Some(false)];

/// Does `act` with every number of changes before a death, and brings it to its end; `check` looks at what is left.
fn die_anywhere(
    what: &str,
    prepare: &dyn Fn(bool) -> Land,
    act: &dyn Fn(&Land),
    check: &dyn Fn(&Land, &str),
) {
    let mut count = 0;
    for exchanges in [true, false] {
        let length = {
            let land = prepare(exchanges);
            let start = land.changes();
            act(&land);
            land.changes() - start
        };
        for death in DEATHS {
            for fuel in 0..=length {
                let land = prepare(exchanges);
                land.fuel(Some(fuel));
                act(&land);
                // It dies twice more on the way, and then it stays alive.
                for again in [Some(fuel % 7), Some(fuel % 3), None] {
                    if let Some(cache_is_fresh) = death {
                        land.cut_power(cache_is_fresh);
                        land.state().users.clear();
                        // A start brings its services up.
                        land.state().active.insert("webapp.service".to_owned());
                        land.state().daemon_runs = false;
                    }
                    land.fuel(again);
                    let adopter = Adopter::new(&land);
                    let adopter = if death.is_some() { adopter.while_starting() } else { adopter };
                    let (_, done) = adopter.recover(&mut Silent);
                    assert!(again.is_some() || done.is_ok(), "{what} {fuel} of {length}: {done:?}");
                }
                land.state().daemon_runs = true;
                let when = format!("{what}, {fuel} of {length}, exchanges: {exchanges}, {death:?}");
                check(&land, &when);
                count += 1;
            }
        }
    }
    say(what, count);
}

/// What such tests are for: N of N.
#[expect(clippy::print_stderr, reason = "the figure is what these tests are for")]
fn say(what: &str, count: usize) {
    eprintln!("{what}: {count}/{count} lose nothing");
}

/// Adopted or as before; and then it can be adopted.
fn assert_one_or_the_other(land: &Land, when: &str) {
    match stage(land) {
        Some(Stage::Unconfirmed) => assert_adopted(land, when),
        None | Some(Stage::TakenBack) => {
            assert_as_before(land, when);
            adopt(land, true).unwrap_or_else(|error| panic!("{when}: {error}"));
            assert_adopted(land, when);
        }
        other => panic!("{when}: {other:?}"),
    }
}

#[test]
fn a_death_anywhere_leaves_the_directory_or_the_dataset() {
    let act = |land: &Land| drop(adopt(land, true));
    die_anywhere("deaths while adopting", &|exchanges| land(exchanges, true), &act, &assert_one_or_the_other);
}

#[test]
fn a_death_while_it_is_brought_back_leaves_the_directory_or_the_dataset() {
    let prepare = |exchanges| {
        let land = land(exchanges, false);
        adopt(&land, false).expect("it is adopted");
        land
    };
    let act = |land: &Land| drop(Adopter::new(land).take_back(PATH, false, &mut Silent));
    die_anywhere("deaths while bringing back", &prepare, &act, &assert_one_or_the_other);
}

#[test]
fn what_was_written_since_outlives_a_death_while_the_directory_is_brought_back() {
    let prepare = |exchanges| {
        let land = land(exchanges, false);
        adopt(&land, false).expect("it is adopted");
        kld_engine::Host::put(&land, "/srv/app/since", &file("precious")).expect("writable");
        land
    };
    let act = |land: &Land| drop(Adopter::new(land).take_back(PATH, false, &mut Silent));
    die_anywhere("deaths while bringing back what has changed", &prepare, &act, &|land, when| {
        if stage(land) == Some(Stage::Unconfirmed) {
            assert!(land.seen(PATH).contains_key("/since"), "{when}");
            let back = Adopter::new(land).look_back(PATH).expect("it can go back");
            assert!(back.is_changed && back.differences.len() == 1, "{when}: {back:?}");
            let left = Adopter::new(land).take_back(PATH, false, &mut Silent).expect("it goes back");
            assert_eq!(left, ["rpool/srv/app.undone-adopt-000001"], "{when}");
        }
        assert_eq!(land.seen(PATH), Land::new(true).seen(PATH), "{when}");
        assert!(land.has_anywhere("/since"), "{when}");
        assert!(land.state().datasets.contains_key("rpool/srv/app.undone-adopt-000001"), "{when}");
        assert_eq!(land.mounted(), [], "{when}");
    });
}

#[test]
fn a_dataset_whose_snapshot_is_held_is_kept_when_the_directory_comes_back() {
    for exchanges in [true, false] {
        let land = land(exchanges, false);
        adopt(&land, false).expect("it is adopted");
        land.state().holds = true;
        let left = Adopter::new(&land).take_back(PATH, false, &mut Silent).expect("it goes back");
        assert_eq!(left, ["rpool/srv/app.undone-adopt-000001"]);
        assert_eq!(land.seen(PATH), Land::new(true).seen(PATH));
        assert_eq!((stage(&land), land.mounted()), (Some(Stage::TakenBack), vec![]));
        assert!(!land.state().datasets.contains_key("rpool/srv/app"));
        let own = &land.state().datasets["rpool/srv/app.undone-adopt-000001"];
        assert_eq!(own["canmount"], "noauto");
    }
}

#[test]
fn a_death_while_the_kept_directory_is_removed_goes_on() {
    let prepare = |exchanges| {
        let land = land(exchanges, false);
        adopt(&land, false).expect("it is adopted");
        land
    };
    let act = |land: &Land| drop(Adopter::new(land).confirm(PATH));
    die_anywhere("deaths while confirming", &prepare, &act, &|land, when| {
        assert_eq!(land.seen(PATH), Land::new(true).seen(PATH), "{when}");
        if land.mounted().is_empty() {
            // Its mount unit is not there yet, and what is kept may be all there is.
            let refused = Adopter::new(land).confirm(PATH);
            assert!(refused.is_err() || land.beside() == ["app"], "{when}");
            return;
        }
        if stage(land) != Some(Stage::Confirmed) {
            Adopter::new(land).confirm(PATH).unwrap_or_else(|error| panic!("{when}: {error}"));
        }
        assert_eq!(land.beside(), ["app"], "{when}");
        assert_eq!(land.seen(PATH), Land::new(true).seen(PATH), "{when}");
    });
}

#[test]
fn what_anybody_writes_at_any_moment_is_not_lost() {
    let mut counts = (0, 0);
    for exchanges in [true, false] {
        let length = {
            let land = land(exchanges, false);
            let start = land.changes();
            adopt(&land, false).expect("it is adopted");
            land.changes() - start
        };
        for at in 0..=length {
            for name in ["/srv/app/while", "/srv/app/below/while"] {
                let land = land(exchanges, false);
                let start = land.changes();
                land.state().writer = Some((start + at, name.to_owned()));
                let done = adopt(&land, false);
                let when = format!("{name} before {at} of {length}, exchanges: {exchanges}: {done:?}");
                let name = &name[PATH.len()..];
                match done {
                    Ok(adoption) => {
                        let is_in = |path: &str| land.seen(path).contains_key(name);
                        assert!(!land.state().written || is_in(PATH), "{when}");
                        // Written after everything was looked at for the last time: that is into the dataset.
                        assert!(!is_in(&adoption.aside) || is_in(PATH), "{when}");
                        counts.0 += 1;
                    }
                    Err(AdoptError::Failed { left, .. }) => {
                        assert!(land.state().written, "{when}");
                        let there = land.seen(PATH).contains_key(name);
                        let elsewhere = left.iter().any(|left| {
                            let at =
                                if left.starts_with('/') { land.seen(left).contains_key(name) } else { true };
                            at && land.has_anywhere(name)
                        });
                        assert!(there || elsewhere, "{when}");
                        let mut rest = land.seen(PATH);
                        rest.remove(name);
                        assert_eq!(rest, Land::new(true).seen(PATH), "{when}");
                        assert_eq!(land.mounted(), [], "{when}");
                        counts.1 += 1;
                    }
                    Err(error) => panic!("{when}: {error}"),
                }
            }
        }
    }
    assert!(counts.0 > 0 && counts.1 > 10, "{counts:?}");
    say("writes while adopting", counts.0 + counts.1);
}

#[test]
fn what_is_kept_is_removed_only_when_it_is_what_was_copied() {
    let land = land(true, false);
    let adoption = adopt(&land, false).expect("it is adopted");
    kld_engine::Host::put(&land, &format!("{}/late", adoption.aside), &file("precious")).expect("writable");
    let refused = Adopter::new(&land).confirm(PATH).expect_err("somebody has written there");
    assert!(refused.to_string().contains("has changed since it was copied\n  /late: content"), "{refused}");
    assert_eq!(stage(&land), Some(Stage::Unconfirmed));
    assert!(land.has_anywhere("/late"));
}

#[test]
fn a_busy_dataset_stays_and_a_bad_property_touches_nothing() {
    let land = land(true, false);
    let adopter = Adopter::new(&land);
    let mut odd = wish();
    odd.properties = vec![("recordsize".to_owned(), "odd".to_owned())];
    let prospect = adopter.look(&odd).expect("zfs knows better");
    let refused = adopter.adopt(&prospect, "tester", false, &mut Silent).expect_err("it is odd");
    assert!(refused.to_string().contains("must be a power of 2"), "{refused}");
    assert_as_before(&land, "refused");

    adopt(&land, false).expect("it is adopted");
    land.state().users.push(User { unit: None, ..user() });
    assert!(matches!(adopter.take_back(PATH, true, &mut Silent), Err(AdoptError::InUse { .. })));
    land.state().users.clear();
    assert_adopted(&land, "in use");
}

#[test]
fn services_run_again_though_it_cannot_be_brought_to_its_end() {
    for exchanges in [true, false] {
        let land = land(exchanges, true);
        let before = land.seen(PATH);
        let check = |done: Result<(), AdoptError>, when: &str| {
            assert!(matches!(done, Err(AdoptError::Stuck { .. })), "{when}: {done:?}");
            assert!(land.state().active.contains("webapp.service"), "{when}: the service runs");
            assert_eq!(land.seen(PATH), before, "{when}");
        };
        land.state().refuses_sync = true;
        check(adopt(&land, true).map(drop), "adopting");
        let adopter = Adopter::new(&land);
        check(adopter.recover(&mut Silent).1, "recovering");
        land.state().refuses_sync = false;
        adopter.recover(&mut Silent).1.expect("it takes writes again");
        assert_as_before(&land, "in the end");

        adopt(&land, true).expect("it is adopted");
        land.state().users.push(user());
        land.state().refuses_sync = true;
        check(adopter.take_back(PATH, true, &mut Silent).map(drop), "taking back");
        land.state().refuses_sync = false;
        adopter.recover(&mut Silent).1.expect("it takes writes again");
        assert_as_before(&land, "taken back");
    }
}

/// Adopts, or takes back, and is told to stop before each change of it; `check` looks at what is left, told whether it has stopped.
/// Gives how often it did, and how often not.
fn tell_anywhere(
    prepare: &dyn Fn(bool) -> Land,
    act: &dyn Fn(Adopter<'_>) -> Result<(), AdoptError>,
    check: &dyn Fn(&Land, bool, &str),
) -> (usize, usize) {
    let mut counts = (0, 0);
    for exchanges in [true, false] {
        let length = {
            let land = prepare(exchanges);
            let start = land.changes();
            act(Adopter::new(&land)).expect("nobody tells it anything");
            land.changes() - start
        };
        for at in 0..length {
            let land = prepare(exchanges);
            let told = Arc::new(AtomicBool::new(false));
            let at_change = land.changes() + at;
            land.state().teller = Some((at_change, Arc::clone(&told)));
            let done = act(Adopter::new(&land).unless(&told));
            let when = format!("before {at} of {length}, exchanges: {exchanges}: {done:?}");
            let has_stopped = match done {
                Ok(()) => false,
                Err(AdoptError::Stopped { left, .. }) if left.is_empty() => true,
                Err(_) => panic!("{when}"),
            };
            check(&land, has_stopped, &when);
            if has_stopped { counts.0 += 1 } else { counts.1 += 1 }
        }
    }
    counts
}

#[test]
fn whoever_tells_it_to_stop_has_everything_as_it_was() {
    let act = |adopter: Adopter<'_>| {
        let prospect = adopter.look(&wish())?;
        adopter.adopt(&prospect, "tester", true, &mut Silent).map(drop)
    };
    let (stopped, done) = tell_anywhere(&|exchanges| land(exchanges, true), &act, &|land, stopped, when| {
        if stopped { assert_as_before(land, when) } else { assert_adopted(land, when) }
    });
    assert!(stopped > 20 && done < 15, "{stopped} {done}");
}

#[test]
fn whoever_tells_taking_back_to_stop_has_the_dataset_or_the_directory() {
    let prepare = |exchanges| {
        let land = land(exchanges, true);
        adopt(&land, true).expect("it is adopted");
        land.state().users.push(user());
        land
    };
    let act = |adopter: Adopter<'_>| adopter.take_back(PATH, true, &mut Silent).map(drop);
    let (stopped, done) = tell_anywhere(&prepare, &act, &|land, stopped, when| {
        if stopped { assert_adopted(land, when) } else { assert_as_before(land, when) }
    });
    assert!(stopped > 3 && done > 3, "{stopped} {done}");
}

#[test]
fn one_that_is_stuck_keeps_no_other_from_its_end() {
    let land = land(true, false);
    let put = |path: &str, entry: &Entry| kld_engine::Host::put(&land, path, entry).expect("writable");
    put("/var/lib/kldload/adoptions/000001/adoption.json", &file("nonsense"));
    put("/srv/other/a", &file("one"));
    let die = |path: &str| {
        let adopter = Adopter::new(&land);
        let prospect = adopter.look(&Wish { path: path.to_owned(), ..Wish::default() }).expect("it can be");
        land.fuel(Some(8));
        adopter.adopt(&prospect, "tester", false, &mut Silent).expect_err("the machine dies");
        land.fuel(None);
    };
    die("/srv/other");
    kld_engine::Ground::rename(&land, "/srv/other", "/srv/moved").expect("somebody moves it away");
    die(PATH);
    let (mended, all) = Adopter::new(&land).recover(&mut Silent);
    let paths: Vec<&str> = mended.iter().map(|mended| mended.adoption.path.as_str()).collect();
    assert_eq!(paths, [PATH]);
    assert!(matches!(all, Err(AdoptError::Host(_))), "the first: {all:?}");
    kld_engine::Host::remove(&land, "/var/lib/kldload/adoptions/000001/adoption.json").expect("writable");
    let (mended, all) = Adopter::new(&land).recover(&mut Silent);
    assert!(mended.is_empty());
    assert!(matches!(&all, Err(AdoptError::Stuck { path, .. }) if path == "/srv/other"), "{all:?}");
}

#[test]
fn a_service_that_names_it_is_in_the_way_though_nothing_is_open() {
    let land = land(true, false);
    land.state().naming.insert("webapp.service".to_owned());
    let refused = adopt(&land, false).expect_err("it will write there");
    assert!(
        refused.to_string().contains("webapp.service (process 9) names it in ReadWritePaths="),
        "{refused}"
    );
    assert_as_before(&land, "refused");
    adopt(&land, true).expect("it is stopped meanwhile");
    assert_adopted(&land, "adopted");
    let adopter = Adopter::new(&land);
    assert!(matches!(adopter.take_back(PATH, false, &mut Silent), Err(AdoptError::InUse { .. })));
    assert_adopted(&land, "still");
    adopter.take_back(PATH, true, &mut Silent).expect("it is stopped meanwhile");
    assert_as_before(&land, "taken back");
}

#[test]
fn nobody_but_root_may_lead_the_mount_elsewhere() {
    let land = land(true, true);
    let adopter = Adopter::new(&land);
    let directory = |mode, uid| Entry { node: Node::Directory, mode, uid, gid: 7 };
    let put = |path: &str, entry: &Entry| kld_engine::Host::put(&land, path, entry).expect("writable");
    put("/home", &directory(0o755, 0));
    put("/home/ada", &directory(0o755, 7));
    put("/home/ada/photos", &directory(0o755, 7));
    let photos = Wish {
        path: "/home/ada/photos".to_owned(),
        dataset: Some("rpool/srv/photos".to_owned()),
        ..Wish::default()
    };
    let check = |want: &[&str]| {
        let error = adopter.look(&photos).expect_err("she could put a link there");
        let said = format!("{error} / {}", error.hint().unwrap_or_default());
        assert!(want.iter().all(|want| said.contains(want)), "{said}");
    };
    check(&["`/home/ada` does not belong to root", "adopt `/home/ada` itself", "`chown root /home/ada`"]);
    // She is root anyway when she asks, by sudo.
    adopter.on_behalf_of(Some(7)).look(&photos).expect("it is hers");
    adopter.on_behalf_of(Some(8)).look(&photos).expect_err("another one");
    put("/home/ada", &directory(0o775, 0));
    check(&["`/home/ada` can be written to by others than root", "`chmod go-w /home/ada`"]);
    put("/home", &directory(0o777, 0));
    check(&["`/home` can be written to"]);
    // Where only the owner of a thing may give it another name.
    put("/home", &directory(0o1777, 0));
    put("/home/ada", &directory(0o755, 0));
    adopter.look(&photos).expect("only root gives it another name");

    let prospect = adopter.look(&wish()).expect("it can be");
    put("/srv", &directory(0o770, 0));
    let failed = adopter.adopt(&prospect, "tester", true, &mut Silent).expect_err("it is somebody's by now");
    assert!(
        matches!(&failed, AdoptError::Failed { reason, .. } if reason.contains("`/srv` can be")),
        "{failed}"
    );
    assert_as_before(&land, "somebody may write above it");
}

#[test]
fn what_cannot_be_adopted_is_refused_with_a_way_out() {
    let land = land(true, false);
    let check = |wish: Wish, want: &str| {
        let error = Adopter::new(&land).look(&wish).expect_err("refused");
        let said = format!("{error} / {}", error.hint().unwrap_or_default());
        assert!(said.contains(want), "{said}");
    };
    let path = |path: &str| Wish { path: path.to_owned(), ..Wish::default() };
    for of in ["/", "/etc/ssh", "/usr", "/var/lib/dpkg", "/boot", "/run/x", "/usr/share/doc"] {
        check(path(of), "it is a part of the operating system");
    }
    check(path("/srv/none"), "it is not there");
    check(path("/srv/app/a"), "it is not a directory");
    check(path("srv/app"), "it is not a plain absolute path");
    check(path("/srv/../srv/app"), "it is not a plain absolute path");
    check(path("/srv/app/below"), "no dataset has `/srv/app` as its mount point");
    check(Wish { dataset: Some("tank/x".to_owned()), ..wish() }, "there is no dataset `tank`");
    check(Wish { dataset: Some("rpool/srv".to_owned()), ..wish() }, "the dataset `rpool/srv` exists");
    check(Wish { properties: vec![("mountpoint".to_owned(), "/x".to_owned())], ..wish() }, "cannot be given");
    land.state()
        .datasets
        .get_mut("rpool/srv")
        .expect("there")
        .insert("available".to_owned(), "1000".to_owned());
    check(wish(), "make room in the pool");
    assert_as_before(&land, "refused");
}
