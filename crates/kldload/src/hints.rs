//! Every error type that can say what to do next.

use kld_ui::Hints;

/// All of them.
pub(crate) fn all() -> Hints {
    Hints::new()
        .on(kld_boot::BootError::hint)
        .on(kld_boot::MachineError::hint)
        .on(kld_boot::NameError::hint)
        .on(kld_build::BuildError::hint)
        .on(kld_engine::AdoptError::hint)
        .on(kld_engine::ApplyError::hint)
        .on(kld_engine::DirectoryError::hint)
        .on(kld_engine::HostError::hint)
        .on(kld_engine::PlanError::hint)
        .on(kld_engine::ProcedureError::hint)
        .on(kld_engine::WantedError::hint)
        .on(kld_host::ExecError::hint)
        .on(kld_host::WriteError::hint)
        .on(kld_host::LockError::hint)
        .on(kld_node::keys::KeyError::hint)
        .on(kld_packages::PackageError::hint)
        .on(kld_packages::PackageNameError::hint)
        .on(kld_pool::WriteError::hint)
        .on(kld_pool::extract::ExtractError::hint)
        .on(|error: &kld_pool::PropertyError| Some(error.hint().to_owned()))
        .on(|error: &kld_pool::tree::TarError| error.hint().map(str::to_owned))
        .on(kld_snap::KeepError::hint)
        .on(kld_snap::NameError::hint)
        .on(kld_snap::SwapError::hint)
        .on(kld_snap::Unclear::hint)
        .on(kld_snap::WordsError::hint)
        .on(kld_system::UnknownDistro::hint)
        .on(kld_ui::SizeError::hint)
        .on(kld_vm::VmError::hint)
        .on(crate::commands::pool::send::hint)
        .on(crate::commands::pool::send::token_hint)
}
