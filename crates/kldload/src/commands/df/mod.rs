//! `kldload df`, also called `kdf`.

mod what_if;

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap_complete::engine::ArgValueCompleter;
use kld_host::within;
use kld_space::{Dataset, Forest, Growth, Node, Sum, list_cmd, parse_list};
use kld_ui::{ByteSize, ExitStatus, Hinted, Printer, Table};
use serde::Serialize;

use super::place::Chosen;
use super::seconds::seconds;
use crate::candidates;

/// Say where the space is: data, snapshots, reservations, clones, and what has grown
///
/// A tree in which each dataset counts with all below it, so that USED is DATA + SNAPSHOTS + RESERVED; with --sort a list in
/// which each counts by itself. GROWN is what the dataset refers to now, against its oldest snapshot. A pool that is
/// suspended is named and not waited for. Nothing is ever changed, not by --what-if either.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  kdf\n  kdf rpool/srv --depth 1\n  kdf /var/lib/postgresql\n  kdf --sort snapshots | head\n  kdf --what-if destroy rpool/srv/webapp-db@pre-upgrade\n  kdf --what-if destroy tank/a@monday%friday tank/b@x,y\n  kdf --json | jq '.items[] | select(.growth.bytes > 1e9) | .name'"
)]
pub(crate) struct Args {
    /// Datasets, or paths that lie on them; all pools when there is none. With --what-if, snapshots
    #[arg(value_name = "DATASET|PATH", add = ArgValueCompleter::new(candidates::datasets_and_paths))]
    names: Vec<String>,
    /// A list, the largest first, instead of a tree
    #[arg(long, value_name = "KEY", conflicts_with = "what_if")]
    sort: Option<Key>,
    /// How many levels of the tree are shown below the first; the sums have all
    #[arg(long, short, value_name = "LEVELS", conflicts_with_all = ["sort", "what_if"])]
    depth: Option<usize>,
    /// Say how many bytes would come free if these snapshots went, exactly: DATASET@NAME[,NAME…], or a range FROM%TO
    #[arg(long, value_name = "ACTION", requires = "names")]
    what_if: Option<Action>,
    /// Print JSON on standard output
    #[arg(long)]
    json: bool,
    /// How long to wait for an answer
    #[arg(long, default_value = "600s", value_name = "TIME", value_parser = seconds)]
    timeout: u64,
}

/// What would be done.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Action {
    Destroy,
}

/// What a list is in the order of.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Key {
    /// Data, snapshots and reservations
    Used,
    /// What can be seen now
    Data,
    /// What only snapshots hold
    Snapshots,
    /// How many snapshots there are
    Count,
    /// What is kept free
    Reserved,
    /// What was written, before compression
    Logical,
    /// How well it compresses
    Ratio,
    /// What has come since the oldest snapshot
    Grown,
    /// Names, from a to z
    Name,
}

/// Looks, with a deadline: a pool may be suspended while it is asked.
pub(crate) fn run(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let limit = Duration::from_secs(args.timeout);
    let (words, printed) = (args.clone(), printer.clone());
    let answered = within(limit, move || match words.what_if {
        Some(Action::Destroy) => what_if::destroy(&printed, &words.names, words.json),
        None => show(&printed, &words),
    });
    answered.unwrap_or_else(|| {
        let message = format!("ZFS has not answered within {} seconds", args.timeout);
        Err(Hinted::new(message, "`zpool status` says whether a pool is suspended; `--timeout` waits longer")
            .into())
    })
}

fn show(printer: &Printer, args: &Args) -> anyhow::Result<ExitStatus> {
    let chosen = Chosen::of(&args.names)?;
    let text =
        if chosen.is_nothing() { String::new() } else { list_cmd(&chosen.datasets).stdout_string()? };
    let forest = Forest::new(parse_list(&text)?);
    if args.json {
        let rows: Vec<Row<'_>> = shown(&forest, args).into_iter().map(Row::new).collect();
        printer.envelope("space", &rows)?;
    } else if !forest.nodes.is_empty() {
        printer.data(&page(&forest, args))?;
    } else if !chosen.is_nothing() {
        printer.note("there is no dataset");
    }
    Ok(chosen.end(printer))
}

/// The nodes that are shown, in their order.
fn shown<'a>(forest: &'a Forest, args: &Args) -> Vec<&'a Node> {
    let mut nodes: Vec<&Node> =
        forest.nodes.iter().filter(|node| args.depth.is_none_or(|depth| node.depth <= depth)).collect();
    let grown = |node: &Node| node.dataset.growth().map_or(i64::MIN, |growth| growth.bytes);
    let down = std::cmp::Reverse::<u64>;
    match args.sort {
        None => {}
        Some(Key::Name) => nodes.sort_by(|a, b| a.dataset.name.cmp(&b.dataset.name)),
        Some(Key::Grown) => nodes.sort_by_key(|node| std::cmp::Reverse(grown(node))),
        Some(Key::Ratio) => {
            nodes.sort_by(|a, b| b.dataset.compressratio.total_cmp(&a.dataset.compressratio));
        }
        Some(Key::Used) => nodes.sort_by_key(|node| down(node.own.total())),
        Some(Key::Data) => nodes.sort_by_key(|node| down(node.own.data)),
        Some(Key::Snapshots) => nodes.sort_by_key(|node| down(node.own.snapshots)),
        Some(Key::Count) => nodes.sort_by_key(|node| down(node.dataset.snapshots.len() as u64)),
        Some(Key::Reserved) => nodes.sort_by_key(|node| down(node.own.reserved)),
        Some(Key::Logical) => nodes.sort_by_key(|node| down(node.dataset.logicalreferenced)),
    }
    nodes
}

/// A dataset as `--json` shows it.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    dataset: &'a Dataset,
    /// With all below it.
    whole: Sum,
    /// Its own.
    snapshots: usize,
    /// Snapshots that others were cloned from.
    cloned: Vec<&'a kld_space::Snapshot>,
    growth: Option<Growth>,
}

impl<'a> Row<'a> {
    fn new(node: &'a Node) -> Self {
        let dataset = &node.dataset;
        Row {
            dataset,
            whole: node.whole,
            snapshots: dataset.snapshots.len(),
            cloned: dataset.snapshots.iter().filter(|snapshot| !snapshot.clones.is_empty()).collect(),
            growth: dataset.growth(),
        }
    }
}

fn page(forest: &Forest, args: &Args) -> String {
    let mut table = Table::new()
        .left("DATASET")
        .right("USED")
        .right("AVAIL")
        .right("DATA")
        .right("SNAPSHOTS")
        .right("COUNT")
        .right("RESERVED")
        .right("LOGICAL")
        .right("RATIO")
        .right("QUOTA")
        .right("GROWN");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let is_tree = args.sort.is_none();
    let nodes = shown(forest, args);
    for node in &nodes {
        let dataset = &node.dataset;
        let last = dataset.name.rsplit('/').next().unwrap_or_default();
        let (name, sum, count, used, logical) = if is_tree {
            let name = if node.depth == 0 {
                dataset.name.clone()
            } else {
                format!("{}{last}", "  ".repeat(node.depth))
            };
            (name, node.whole, node.snapshots, dataset.used, dataset.logicalused)
        } else {
            (
                dataset.name.clone(),
                node.own,
                dataset.snapshots.len(),
                node.own.total(),
                dataset.logicalreferenced,
            )
        };
        let some = |bytes: u64| if bytes == 0 { String::new() } else { ByteSize(bytes).to_string() };
        table.row([
            name,
            ByteSize(used).to_string(),
            ByteSize(dataset.available).to_string(),
            ByteSize(sum.data).to_string(),
            some(sum.snapshots),
            if count == 0 { String::new() } else { count.to_string() },
            some(sum.reserved),
            ByteSize(logical).to_string(),
            format!("{:.2}x", dataset.compressratio),
            dataset.quota.or(dataset.refquota).map(|bytes| ByteSize(bytes).to_string()).unwrap_or_default(),
            dataset.growth().map(|growth| grown(&growth, now)).unwrap_or_default(),
        ]);
    }
    let mut text = table.to_string();
    if is_tree {
        for node in forest.roots().filter(|node| node.whole.hidden > 0) {
            let own = ByteSize(node.whole.hidden);
            let _ = writeln!(
                text,
                "{}: {own} are the pool's own, or what is just being received",
                node.dataset.name
            );
        }
    }
    for node in nodes {
        for snapshot in node.dataset.snapshots.iter().filter(|snapshot| !snapshot.clones.is_empty()) {
            let clones = snapshot.clones.join(", ");
            let _ = writeln!(text, "{}@{}: cloned as {clones}", node.dataset.name, snapshot.name);
        }
    }
    text
}

/// `+1.20G/30d`.
fn grown(growth: &Growth, now: u64) -> String {
    let sign = if growth.bytes < 0 { '-' } else { '+' };
    let seconds = now.saturating_sub(growth.created);
    let age = match seconds {
        0..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    };
    format!("{sign}{}/{age}", ByteSize(growth.bytes.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use expect_test::expect;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn line(words: &str) -> Args {
        Line::parse_from(std::iter::once("kdf").chain(words.split_whitespace())).args
    }

    const LIST: &str = "\
        t\tfilesystem\t10485760\t1048576\t98304\t20971520\t98304\t2.00\t0\t98304\t10387456\t0\t0\t0\t0\t0\t5\t-\t-\n\
        t/a b\tfilesystem\t2097152\t1048576\t1048576\t4194304\t2097152\t2.00\t1048576\t1048576\t0\t0\t4194304\t0\t3145728\t0\t6\t-\t-\n\
        t/a b@one\tsnapshot\t0\t-\t524288\t-\t1048576\t2.00\t-\t-\t-\t-\t-\t-\t-\t-\t7\t-\tt/c,t/d\n\
        t/c\tfilesystem\t6144000\t1048576\t6144000\t6144000\t6144000\t1.00\t0\t6144000\t0\t0\t0\t0\t0\t0\t8\tt/a b@one\t-\n";

    #[test]
    fn trees_count_with_what_is_below_and_lists_without() {
        let forest = Forest::new(parse_list(LIST).expect("good"));
        expect![[r#"
            DATASET   USED  AVAIL   DATA  SNAPSHOTS  COUNT  RESERVED  LOGICAL  RATIO  QUOTA         GROWN
            t          10M     1M  6.95M         1M      1        2M      20M  2.00x      -             -
              a b       2M     1M     1M         1M      1         -       4M  2.00x     3M  +512K/20819d
              c      5.86M     1M  5.86M          -      -         -    5.86M  1.00x      -             -
            t: 48K are the pool's own, or what is just being received
            t/a b@one: cloned as t/c, t/d
        "#]]
        .assert_eq(&page(&forest, &line("")).replace(&days(), "20819d"));
        let names = |words: &str| -> Vec<String> {
            shown(&forest, &line(words)).iter().map(|node| node.dataset.name.clone()).collect()
        };
        assert_eq!(names("--sort used"), ["t/c", "t/a b", "t"]);
        assert_eq!(names("--sort snapshots")[0], "t/a b");
        assert_eq!(names("--sort grown")[0], "t/a b");
        assert_eq!(names("--sort name"), ["t", "t/a b", "t/c"]);
        assert_eq!(names("--depth 0"), ["t"]);
        assert!(page(&forest, &line("--sort used")).contains("\nt/c    "), "whole names");
    }

    /// How old the snapshot of 1970 is.
    fn days() -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_secs();
        format!("{}d", (now - 7) / 86_400)
    }
}
