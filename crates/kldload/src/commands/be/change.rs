//! How the verbs show what they change.

use kld_boot::{Action, Plan, RealMachine, carry_out};
use kld_ui::{ExitStatus, Printer};
use serde::Serialize;

/// The arguments of every verb that changes something.
#[derive(Debug, clap::Args)]
pub(super) struct Output {
    /// Print what is done as JSON on standard output
    #[arg(long)]
    pub(super) json: bool,
}

/// The arguments of every verb whose change can be planned.
#[derive(Debug, clap::Args)]
pub(super) struct Shown {
    /// Only show what would be done; exits with 3 when that is something
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) output: Output,
}

/// What is done, as `--json` has it.
#[derive(Debug, Serialize)]
struct Change<'a> {
    environment: &'a str,
    /// Whether it was only planned.
    dry_run: bool,
    /// What ZFS and the boot partitions are told, in this order.
    actions: Vec<String>,
}

impl Output {
    /// Does it, and says each action to those who want to know.
    pub(super) fn doing<T>(
        &self,
        printer: &Printer,
        environment: &str,
        work: impl FnOnce(&mut dyn FnMut(&Action)) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut actions = Vec::new();
        let done = work(&mut |action| {
            printer.detail(&action.to_string());
            actions.push(action.to_string());
        })?;
        if self.json {
            printer.envelope("change", &[Change { environment, dry_run: false, actions }])?;
        }
        Ok(done)
    }
}

impl Shown {
    /// Shows what would be done to an environment.
    pub(super) fn plan(
        &self,
        printer: &Printer,
        environment: &str,
        plan: &Plan,
    ) -> anyhow::Result<ExitStatus> {
        let actions: Vec<String> = plan.actions.iter().map(ToString::to_string).collect();
        let status = if actions.is_empty() { ExitStatus::Done } else { ExitStatus::Pending };
        if self.output.json {
            printer.envelope("change", &[Change { environment, dry_run: true, actions }])?;
        } else if actions.is_empty() {
            printer.note("nothing to do");
        } else {
            printer.data(&plan.to_string())?;
        }
        Ok(status)
    }

    /// Carries a plan out.
    pub(super) fn perform(&self, printer: &Printer, environment: &str, plan: &Plan) -> anyhow::Result<()> {
        self.output.doing(printer, environment, |said| Ok(carry_out(&RealMachine, plan, said)?))
    }
}
