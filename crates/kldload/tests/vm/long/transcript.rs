//! Commands of the documentation, with what it says of each.

/// Lines with a `$` in front, and the lines below each, in order.
pub(super) fn commands(text: &str) -> Vec<(String, Vec<String>)> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.split("```").skip(1).step_by(2).flat_map(str::lines).filter(|line| !line.is_empty()) {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), Vec::new())),
            (None, Some((_, said))) => said.push(line.to_owned()),
            (None, None) => panic!("`{line}` is said by no command"),
        }
    }
    commands
}

/// Whether a line must be said word for word: tables and errors are compared by other means.
pub(super) fn is_plain(line: &str) -> bool {
    !line.trim_start().contains("  ") && !line.starts_with("error: ")
}
