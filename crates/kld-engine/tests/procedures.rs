//! Procedures on a machine in memory: branches, proofs, people, interruptions, and what is measured.

mod support;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use expect_test::expect;
use kld_engine::{
    Answer, End, Hands, Host as _, Node, Procedure, ProcedureEnd, ProcedureError, ProcedureKind,
    ProcedureStep, Procedures, Report, Request, StepState, Verdict,
};
use kld_host::Cmd;
use support::fake::Fake;

const HEAD: &str = "\
name: web\nowner: x\npurpose: x\ndistro: Debian 13\nprofile: server
zfs_layout:\n  rpool/srv/web: recordsize=128k
network_topology:\n  eth0: nothing but WireGuard\n  wg0: TCP 22 SSH\n  wg2: syncoid source
wireguard:\n  wg0: address=10.8.0.1/24  port=51820\n  wg2: address=10.8.2.1/24  port=51822  over=wg0
snapshot_policy: hourly=24
replication_policy:\n  target: backup@10.8.2.9:tank/copies\n  schedule: hourly\n";

fn procedure(kind: ProcedureKind, lines: &str) -> Procedure {
    let checked = kld_manifest::check(&format!("{HEAD}{}_procedure:\n{lines}", kind.name()));
    let appliance = checked.appliance.unwrap_or_else(|| panic!("{:#?}", checked.diagnostics));
    Procedure::new(&appliance, kind)
}

fn upgrade(lines: &str) -> Procedure {
    procedure(ProcedureKind::Upgrade, lines)
}

/// A shell whose commands take a second each, and a person.
#[derive(Default)]
struct Script {
    now: u64,
    /// How often a command still fails.
    fails: BTreeMap<&'static str, usize>,
    answers: VecDeque<Answer>,
    ran: Vec<String>,
    asked: Vec<String>,
}

const START: u64 = 1_000_000_000;

impl Script {
    fn new() -> Self {
        Self { now: START, ..Self::default() }
    }

    fn failing(mut self, command: &'static str, times: usize) -> Self {
        self.fails.insert(command, times);
        self
    }

    fn answering(mut self, answers: &[Answer]) -> Self {
        self.answers.extend(answers);
        self
    }
}

impl Hands for Script {
    fn now(&self) -> u64 {
        self.now
    }

    fn wait(&mut self, time: Duration) {
        self.now += u64::try_from(time.as_millis()).expect("short");
    }

    fn run(
        &mut self,
        command: &str,
        _: Option<Duration>,
        _: bool,
        line: &mut dyn FnMut(&str),
    ) -> Result<(), String> {
        self.now += 1000;
        self.ran.push(command.to_owned());
        line(&format!("this is {command}"));
        match self.fails.get_mut(command) {
            Some(times) if *times > 0 => {
                *times -= 1;
                Err("it ended with 1".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn ask(&mut self, what: &str) -> Option<Answer> {
        self.asked.push(what.to_owned());
        self.answers.pop_front()
    }

    fn begins(&mut self, _: usize, _: usize, _: &ProcedureStep) {}
    fn again(&mut self, _: &str, _: Duration) {}
    fn ended(&mut self, _: usize, _: &End, _: Duration) {}

    fn page(&self, report: &Report) -> String {
        format!("{} is {:?}\n", report.number, report.end)
    }
}

fn request(from: Option<usize>) -> Request {
    Request { from, by: "tester".to_owned(), within: Duration::from_secs(10) }
}

fn run(fake: &Fake, procedure: &Procedure, from: Option<usize>, script: &mut Script) -> Report {
    Procedures::new(fake).run(procedure, &request(from), script).unwrap_or_else(|error| panic!("{error:?}"))
}

fn states(report: &Report) -> String {
    let of = |step: &kld_engine::StepReport| match step.state {
        StepState::Earlier => 'e',
        StepState::Open => '.',
        StepState::Waiting => 'w',
        StepState::UnderWay => 'u',
        StepState::Done => 'd',
        StepState::Failed => 'f',
        StepState::Skipped => 's',
    };
    report.steps.iter().map(of).collect()
}

const UPGRADE: &str = "  1. ksnap rpool/srv/web pre-upgrade
  2. apt-get -y dist-upgrade
  3. Verify: kst
  4. If failed: ksnap rollback rpool/srv/web pre-upgrade
  5. If failed: systemctl restart web
  6. logger done
  7. If failed: logger sorry
";

#[test]
fn steps_run_in_order_and_branches_do_not() {
    let (fake, mut script) = (Fake::new(BTreeMap::new()), Script::new());
    let report = run(&fake, &upgrade(UPGRADE), None, &mut script);
    assert_eq!((report.end, states(&report).as_str()), (ProcedureEnd::Done, "ddd..d."));
    assert_eq!(
        script.ran,
        ["ksnap rpool/srv/web pre-upgrade", "apt-get -y dist-upgrade", "kst", "logger done"]
    );
    assert!(report.is_well());
    assert_eq!(report.steps[1].output, "this is apt-get -y dist-upgrade\n");
    assert_eq!(report.steps[1].millis, Some(1000));
    // Only root reads what happened.
    for name in ["journal", "report.json", "report.txt", "output/2"] {
        let entry = fake.entry(&format!("/var/lib/kldload/procedures/000001/{name}")).expect("readable");
        assert_eq!(entry.map(|entry| entry.mode), Some(0o600), "{name}");
    }
    let page = fake.entry("/var/lib/kldload/procedures/000001/report.txt").expect("readable");
    assert_eq!(page.map(|entry| entry.node), Some(Node::File(b"1 is Done\n".to_vec())));
    assert_eq!(Procedures::new(&fake).reports().expect("readable"), [report]);
}

#[test]
fn a_step_that_fails_leads_into_the_branch_behind_it_and_to_the_end() {
    let fake = Fake::new(BTreeMap::new());
    let mut script = Script::new().failing("apt-get -y dist-upgrade", 1);
    let report = run(&fake, &upgrade(UPGRADE), None, &mut script);
    assert_eq!((report.end, states(&report).as_str()), (ProcedureEnd::Failed, "df.dd.."));
    assert_eq!(report.failed().and_then(|step| step.reason.as_deref()), Some("it ended with 1"));
    assert!(!report.is_well());

    // The last step has a branch of its own.
    let mut script = Script::new().failing("logger done", 1);
    let report = run(&fake, &upgrade(UPGRADE), None, &mut script);
    assert_eq!(states(&report), "ddd..fd");

    // A branch that fails ends there.
    let mut script = Script::new()
        .failing("apt-get -y dist-upgrade", 1)
        .failing("ksnap rollback rpool/srv/web pre-upgrade", 1);
    let report = run(&fake, &upgrade(UPGRADE), None, &mut script);
    assert_eq!(states(&report), "df.f...");

    // Without a branch there is nothing to take.
    let mut script = Script::new().failing("reboot", 1);
    let report = run(&fake, &upgrade("  1. reboot\n  2. kst\n"), None, &mut script);
    assert_eq!((report.end, states(&report).as_str()), (ProcedureEnd::Failed, "f."));
}

#[test]
fn a_proof_is_tried_until_it_holds_or_time_is_over() {
    let fake = Fake::new(BTreeMap::new());
    let mut script = Script::new().failing("kst", 3);
    let report = run(&fake, &upgrade("  1. reboot\n  2. Verify: kst\n"), None, &mut script);
    assert_eq!((report.end, script.ran.len()), (ProcedureEnd::Done, 5));
    // Three times a second and a pause, and the time that held.
    assert_eq!(report.steps[1].millis, Some(7000));
    assert_eq!(report.rto.measured_millis, Some(8000));

    let mut script = Script::new().failing("kst", 100);
    let report = run(&fake, &upgrade("  1. Verify: kst\n  2. If failed: reboot\n"), None, &mut script);
    assert_eq!(states(&report), "fd");
    assert!(report.steps[0].millis.is_some_and(|millis| (8000..=12_000).contains(&millis)), "{report:#?}");
    // Only the last try is kept.
    assert_eq!(report.steps[0].output, "this is kst\n");

    let mut script = Script::new().failing("kst", 100);
    let own = "  steps:\n    - verify: kst\n      timeout: 3s\n      if_failed: reboot\n";
    let report = run(&fake, &upgrade(own), None, &mut script);
    assert_eq!(states(&report), "fd");
    assert!(report.steps[0].millis.is_some_and(|millis| millis <= 4000), "{report:#?}");
}

const PEOPLE: &str = "  1. logger begin\n  2. Boot it, then look\n  3. Verify: the lamp is green\n  4. If failed: call the owner\n";

#[test]
fn people_answer_for_what_is_theirs() {
    let fake = Fake::new(BTreeMap::new());
    let mut script = Script::new().answering(&[Answer::Done, Answer::Done]);
    let report = run(&fake, &upgrade(PEOPLE), None, &mut script);
    assert_eq!((states(&report).as_str(), report.is_well()), ("ddd.", true));
    assert_eq!(script.asked, ["Boot it, then look", "the lamp is green"]);

    let mut script = Script::new().answering(&[Answer::Skip, Answer::Failed, Answer::Done]);
    let report = run(&fake, &upgrade(PEOPLE), None, &mut script);
    assert_eq!((states(&report).as_str(), report.end), ("dsfd", ProcedureEnd::Failed));

    // Nobody is there: it stops before the step, and goes on from it.
    let report = run(&fake, &upgrade(PEOPLE), None, &mut Script::new());
    assert_eq!((states(&report).as_str(), report.end), ("dw..", ProcedureEnd::Stopped));
    let mut script = Script::new().answering(&[Answer::Done, Answer::Done]);
    script.now += 60_000;
    let report = run(&fake, &upgrade(PEOPLE), Some(2), &mut script);
    assert_eq!((states(&report).as_str(), report.continues), ("edd.", Some(3)));
    assert_eq!(script.ran, [""; 0]);
    // The clock of the recovery runs since the beginning of the first.
    assert_eq!((report.since, report.rto.measured_millis), (START, Some(60_000)));
}

#[test]
fn recovery_is_measured_against_its_targets() {
    let fake = Fake::new(BTreeMap::new());
    fake.change(|machine| {
        machine.datasets.insert("tank".to_owned(), BTreeMap::new());
        machine.datasets.insert("tank/copies".to_owned(), BTreeMap::new());
        machine.datasets.insert("tank/copies/web".to_owned(), BTreeMap::new());
    });
    let second = START / 1000;
    let dr = |targets: &str| {
        procedure(ProcedureKind::Dr, &format!("  {targets}\n  1. zpool import tank\n  2. Verify: kst\n"))
    };
    let report = run(&fake, &dr("RTO: 1 minute  RPO: 1 hour"), None, &mut Script::new());
    assert_eq!((report.rto.verdict, report.rpo.verdict), (Verdict::Met, Verdict::Missed));
    assert_eq!(report.rpo.basis, "`rpool/srv/web` has no snapshot here");
    assert!(!report.is_well());

    // The copy on the machine that receives, ten minutes old; one that came later does not count.
    for age in [600, 4000] {
        let name = format!("tank/copies/web@auto-{}", second - age);
        fake.run(&Cmd::new("zfs").args(["snapshot", &name])).expect("made");
    }
    let later = format!("tank/copies/web@auto-{}", second + 50);
    fake.run(&Cmd::new("zfs").args(["snapshot", &later])).expect("made");
    let report = run(&fake, &dr("RTO: 1 minute  RPO: 1 hour"), None, &mut Script::new());
    assert!(report.is_well(), "{report:#?}");
    assert_eq!(report.rpo.measured_millis, Some(600_000));
    expect!["age of `tank/copies/web@auto-999400` at the start"].assert_eq(&report.rpo.basis);
    expect!["from the start until step 2 held"].assert_eq(&report.rto.basis);

    let report = run(&fake, &dr("RTO: 1 second  RPO: 5 minutes"), None, &mut Script::new());
    assert_eq!((report.rto.verdict, report.rpo.verdict), (Verdict::Missed, Verdict::Missed));
    assert_eq!(report.end, ProcedureEnd::Done);

    // What failed was not in time, however fast.
    let report = run(&fake, &dr("RTO: 1 day"), None, &mut Script::new().failing("zpool import tank", 1));
    assert_eq!((report.rto.verdict, report.rto.measured_millis), (Verdict::Missed, None));
    assert_eq!(report.rpo.verdict, Verdict::NoTarget);
}

#[test]
fn a_kill_anywhere_is_remembered_and_no_step_runs_unasked() {
    let procedure = upgrade(UPGRADE);
    let mut crashes = 0;
    for fuel in 0.. {
        let fake = Fake::new(BTreeMap::new());
        let mut script = Script::new();
        fake.fuel(Some(fuel));
        let died = match Procedures::new(&fake).run(&procedure, &request(None), &mut script) {
            Err(ProcedureError::Memory(_)) => true,
            other => {
                assert!(other.is_ok_and(|report| report.is_well()));
                false
            }
        };
        fake.fuel(None);
        if !died {
            break;
        }
        crashes += 1;
        let before = script.ran.clone();
        let reports = Procedures::new(&fake).reports().expect("readable");
        match Procedures::new(&fake).run(&procedure, &request(None), &mut script) {
            Err(ProcedureError::Interrupted { number: 1, step, .. }) => {
                let from = match step {
                    kld_engine::Interrupted::In(number, text) => {
                        assert_eq!(text, procedure.steps[number - 1].text);
                        number
                    }
                    kld_engine::Interrupted::Before(number) => number,
                };
                assert_eq!(script.ran, before, "nothing runs before somebody has looked");
                // All steps but the one under way ran once.
                let report = run(&fake, &procedure, Some(from), &mut script);
                // From the first step on, it is another one.
                let continues = (from > 1).then_some(1);
                assert_eq!((report.end, report.continues), (ProcedureEnd::Done, continues));
                let mut once = script.ran.clone();
                once.dedup();
                let all =
                    ["ksnap rpool/srv/web pre-upgrade", "apt-get -y dist-upgrade", "kst", "logger done"];
                assert_eq!(once, all, "{fuel}");
                assert!(script.ran.len() <= all.len() + 1, "{:?}", script.ran);
            }
            // It never began, or it had ended.
            Ok(report) => {
                assert!(report.is_well());
                let ended = reports.first().is_none_or(|report| report.end == ProcedureEnd::Done);
                assert!(ended && (before.is_empty() || before.len() == 4), "{fuel}: {before:?}");
            }
            Err(error) => panic!("{fuel}: {error:?}"),
        }
    }
    assert!(crashes > 20, "{crashes}");
}

#[test]
fn what_cannot_be_carried_out_is_said_and_nothing_runs() {
    let fake = Fake::new(BTreeMap::new());
    let mut script = Script::new();
    let run = |procedure: &Procedure, from, script: &mut Script| {
        let error = Procedures::new(&fake).run(procedure, &request(from), script).expect_err("refused");
        format!("{error}: {}", error.hint().unwrap_or_default())
    };
    let empty = Procedure { steps: Vec::new(), ..upgrade(UPGRADE) };
    expect!["the manifest has no `upgrade_procedure`: write its steps: `upgrade_procedure:`, then `1. …` below; docs/manifest.md shows how"]
        .assert_eq(&run(&empty, None, &mut script));
    for from in [0, 8] {
        let said = run(&upgrade(UPGRADE), Some(from), &mut script);
        assert_eq!(
            said,
            format!(
                "there is no step {from}: the `upgrade_procedure` has 7: `kldload upgrade --dry-run` shows them"
            )
        );
    }
    assert!(script.ran.is_empty() && Procedures::new(&fake).reports().expect("readable").is_empty());
}
