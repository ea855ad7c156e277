//! Plans with nothing to do, on machines in memory: `many time RUNS COUNT…`. And the same manifests for real machines, with
//! the questions that a plan asks its tools and the names for other programs: `many write DIR COUNT`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use support::many::{Many, as_wanted, wanted_in};
use support::plan_for;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", dir, count] => {
            let dir = Path::new(dir);
            std::fs::create_dir_all(dir)?;
            let many = Many::real(count.parse()?);
            many.write(dir)?;
            many.write_names(dir)?;
            let wanted = wanted_in(dir);
            let fake = as_wanted(&wanted);
            fake.take_log();
            plan_for(&fake, &wanted);
            std::fs::write(dir.join("asked"), fake.take_log().join("\0") + "\0")?;
        }
        ["time", runs, ref counts @ ..] => {
            for count in counts {
                let line = time(runs.parse()?, count.parse()?)?;
                writeln!(std::io::stdout(), "{line}")?;
            }
        }
        _ => return Err("`many write DIR COUNT` or `many time RUNS COUNT…`".into()),
    }
    Ok(())
}

/// Medians in seconds: reading the manifest, planning, and both as one run.
fn time(runs: usize, count: usize) -> Result<serde_json::Value, Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    Many::new(count).write(dir.path())?;
    let fake = as_wanted(&wanted_in(dir.path()));
    let (mut read, mut planned, mut total) = (Vec::new(), Vec::new(), Vec::new());
    let (mut items, mut processes) = (0, 0);
    for _ in 0..runs.max(1) {
        fake.take_log();
        let start = Instant::now();
        let wanted = wanted_in(dir.path());
        read.push(start.elapsed().as_secs_f64());
        let plan = plan_for(&fake, &wanted);
        total.push(start.elapsed().as_secs_f64());
        planned.push(total[total.len() - 1] - read[read.len() - 1]);
        assert!(plan.is_empty(), "{plan:#?}");
        items = plan.items.keys().filter(|item| !item.contains('#')).count();
        processes = fake.take_log().len();
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Ok(serde_json::json!({
        "count": count,
        "items": items,
        "processes": processes,
        "read": median(read),
        "plan": median(planned),
        "total": median(total),
    }))
}
