//! The machine while the layers add to it, and the check that they agree.

use std::collections::BTreeMap;

use kld_manifest::names::{DatasetName, PackageName};

use crate::distro;
use crate::render::RenderError;
use crate::system::{Because, Enablement, Item, SystemDataset, SystemFile, SystemUser, UnitState};

/// What the layers have asked for so far. Keeps first-come reasons; [`Draft::check`] finds contradictions.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) datasets: BTreeMap<DatasetName, SystemDataset>,
    pub(crate) users: Vec<SystemUser>,
    pub(crate) kernel_args: Vec<Item<String>>,
    packages: BTreeMap<PackageName, Because>,
    files: Vec<SystemFile>,
    units: Vec<UnitState>,
}

/// A [`Draft`] without contradictions, everything in order.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) packages: Vec<Item<PackageName>>,
    pub(crate) datasets: Vec<SystemDataset>,
    pub(crate) users: Vec<SystemUser>,
    pub(crate) files: Vec<SystemFile>,
    pub(crate) units: Vec<UnitState>,
    pub(crate) kernel_args: Vec<Item<String>>,
}

impl Draft {
    /// Asks for the packages of a role.
    pub(crate) fn role(&mut self, names: &[String], because: &Because) {
        for name in names {
            self.package(distro::package(name), because.clone());
        }
    }

    /// Asks for one package; the first reason stays.
    pub(crate) fn package(&mut self, name: PackageName, because: Because) {
        self.packages.entry(name).or_insert(because);
    }

    /// Asks for a file.
    pub(crate) fn file(&mut self, file: SystemFile) {
        self.files.push(file);
    }

    /// Asks for a unit's state.
    pub(crate) fn unit(&mut self, name: &str, state: Enablement, because: Because) {
        self.units.push(UnitState { unit: distro::unit(name), state, because });
    }

    /// Puts everything in order, or says which two layers want different things.
    pub(crate) fn check(self) -> Result<Checked, RenderError> {
        let mut files: BTreeMap<String, SystemFile> = BTreeMap::new();
        for file in self.files {
            if let Some(first) = files.get(&file.path) {
                if (&first.content, first.mode, &first.owner) != (&file.content, file.mode, &file.owner) {
                    return Err(RenderError::FileTwice {
                        path: file.path,
                        first: Box::new(first.because.clone()),
                        second: Box::new(file.because),
                    });
                }
            } else {
                files.insert(file.path.clone(), file);
            }
        }
        let mut units: BTreeMap<_, UnitState> = BTreeMap::new();
        for state in self.units {
            match units.get(&state.unit) {
                Some(first) if first.state != state.state => {
                    return Err(RenderError::UnitTwice {
                        unit: state.unit,
                        first: Box::new(first.because.clone()),
                        second: Box::new(state.because),
                    });
                }
                Some(_) => {}
                None => drop(units.insert(state.unit.clone(), state)),
            }
        }
        let mut mounts: BTreeMap<&str, &SystemDataset> = BTreeMap::new();
        for dataset in self.datasets.values() {
            let Some(path) = dataset.mounted_at() else { continue };
            if let Some(first) = mounts.insert(path, dataset) {
                return Err(RenderError::MountTwice {
                    path: path.to_owned(),
                    first: first.name.clone(),
                    second: dataset.name.clone(),
                    because: Box::new(
                        if dataset.because.span.is_written() { &dataset.because } else { &first.because }
                            .clone(),
                    ),
                });
            }
        }
        Ok(Checked {
            packages: self.packages.into_iter().map(|(name, because)| Item::new(name, because)).collect(),
            datasets: self.datasets.into_values().collect(),
            users: self.users,
            files: files.into_values().collect(),
            units: units.into_values().collect(),
            kernel_args: self.kernel_args,
        })
    }
}
