//! Datasets as a tree, and what each takes together with all below it.

use std::collections::HashMap;
use std::iter::Sum as Summed;
use std::ops::Add;

use serde::Serialize;

use crate::list::Dataset;

/// Where bytes are. Together they are what ZFS calls `used`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Sum {
    /// What can be seen now.
    pub data: u64,
    /// What only snapshots hold.
    pub snapshots: u64,
    /// What is kept free for somebody.
    pub reserved: u64,
    /// What belongs to no dataset that is listed: the pool's own metadata, and what is just being received.
    pub hidden: u64,
}

impl Sum {
    /// All of it.
    pub fn total(self) -> u64 {
        [self.data, self.snapshots, self.reserved, self.hidden].into_iter().fold(0, u64::saturating_add)
    }
}

impl Add for Sum {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            data: self.data.saturating_add(other.data),
            snapshots: self.snapshots.saturating_add(other.snapshots),
            reserved: self.reserved.saturating_add(other.reserved),
            hidden: self.hidden.saturating_add(other.hidden),
        }
    }
}

impl Summed for Sum {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// One dataset in the tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The dataset.
    pub dataset: Dataset,
    /// How many listed datasets it is inside of.
    pub depth: usize,
    /// What it takes by itself. Nothing is hidden there.
    pub own: Sum,
    /// What it takes with all below it: its `used`, while nobody changes anything.
    pub whole: Sum,
    /// Its snapshots and those of all below it.
    pub snapshots: usize,
}

/// Datasets in the order of a tree: each is followed by those below it, which are sorted by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Forest {
    /// All of them.
    pub nodes: Vec<Node>,
}

impl Forest {
    /// Makes the tree. Datasets whose parent is not among them are its roots.
    pub fn new(datasets: Vec<Dataset>) -> Self {
        let places: HashMap<&str, usize> =
            datasets.iter().enumerate().map(|(place, dataset)| (dataset.name.as_str(), place)).collect();
        let mut children = vec![Vec::new(); datasets.len()];
        let mut roots = Vec::new();
        for (place, dataset) in datasets.iter().enumerate() {
            let parent = dataset.name.rsplit_once('/').and_then(|(parent, _)| places.get(parent));
            match parent {
                Some(parent) => children[*parent].push(place),
                None => roots.push(place),
            }
        }
        for siblings in children.iter_mut().chain([&mut roots]) {
            siblings.sort_by(|a, b| datasets[*a].name.cmp(&datasets[*b].name));
        }
        // Names are short of 256 bytes, so a tree is no deeper than 128.
        let mut order = Vec::with_capacity(datasets.len());
        let mut waiting: Vec<(usize, usize)> = roots.iter().rev().map(|root| (*root, 0)).collect();
        while let Some((place, depth)) = waiting.pop() {
            order.push((place, depth));
            waiting.extend(children[place].iter().rev().map(|child| (*child, depth + 1)));
        }
        let mut whole = vec![(Sum::default(), 0); datasets.len()];
        for (place, _) in order.iter().rev() {
            let below = children[*place].iter().map(|child| {
                // A parent pays for what is kept for its child and not used yet.
                let kept = datasets[*child].claims() - datasets[*child].used;
                whole[*child].0 + Sum { reserved: kept, ..Sum::default() }
            });
            let below: Sum = below.sum();
            let claimed = children[*place].iter().map(|child| datasets[*child].claims());
            let claimed = claimed.fold(0, u64::saturating_add);
            let hidden = datasets[*place].usedbychildren.saturating_sub(claimed);
            let snapshots = children[*place].iter().map(|child| whole[*child].1).sum::<usize>();
            let sum = own(&datasets[*place]) + below + Sum { hidden, ..Sum::default() };
            whole[*place] = (sum, datasets[*place].snapshots.len() + snapshots);
        }
        let mut datasets: Vec<Option<Dataset>> = datasets.into_iter().map(Some).collect();
        let nodes = order.into_iter().filter_map(|(place, depth)| {
            let dataset = datasets[place].take()?;
            let (whole, snapshots) = whole[place];
            Some(Node { own: own(&dataset), dataset, depth, whole, snapshots })
        });
        Self { nodes: nodes.collect() }
    }

    /// Datasets that no listed one is above of.
    pub fn roots(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.depth == 0)
    }
}

fn own(dataset: &Dataset) -> Sum {
    Sum {
        data: dataset.usedbydataset,
        snapshots: dataset.usedbysnapshots,
        reserved: dataset.usedbyrefreservation,
        hidden: 0,
    }
}
