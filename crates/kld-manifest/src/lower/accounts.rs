//! `users`, `files` and `secrets`.

use super::fields::{Fields, impossible, map_entries, parse_name};
use super::paths;
use crate::diagnostic::Reporter;
use crate::keys::{FILE, SECRET, USER};
use crate::model::{FileSource, FileSpec, MAX_SYSTEM_ACCOUNTS, Secret, SecretSource, User};
use crate::names::{SecretName, UserName};
use crate::span::{Span, Spanned};
use crate::syntax::Node;
use crate::text::Text;
use crate::values::{Wrong, parse_base64};

/// The accounts, in the order written.
pub(super) fn lower_users(node: &Node<'_>, report: &mut Reporter) -> Vec<User> {
    let mut users: Vec<User> = Vec::new();
    for (key, entry) in map_entries(node, "login names", report) {
        let Some(name) = parse_name::<UserName>(key, report) else { continue };
        if let Some(first) = users.iter().find(|user| user.name.value == name.value) {
            report
                .error("duplicate-key", name.span, format!("the account `{}` is written twice", name.value))
                .related(first.name.span, "first written here");
            continue;
        }
        if name.as_str() == "root" {
            report
                .error("reserved-user", name.span, "`root` is there on every machine and cannot log in")
                .hint("make an account with `admin`, which may use sudo");
        }
        users.push(user(name, entry, report));
    }
    if let Some(first) = users.iter().filter(|user| user.system).nth(MAX_SYSTEM_ACCOUNTS) {
        report
            .error(
                "too-many-accounts",
                first.name.span,
                format!("a machine has room for {MAX_SYSTEM_ACCOUNTS} system accounts, and this is one more"),
            )
            .hint("further ones would have the numbers of people: let services share accounts, or split the machine");
    }
    users
}

fn user(name: Spanned<UserName>, entry: &Node<'_>, report: &mut Reporter) -> User {
    let fields = Fields::of(&USER, entry, report);
    let flag = |key: &str, report: &mut Reporter| fields.flag(key, report).is_some_and(|flag| flag.value);
    let (system, admin) = (flag("system", report), flag("admin", report));
    if system {
        for key in ["admin", "shell", "ssh_key", "ssh_keys", "password_hash"] {
            if let Some(span) = fields.span(key) {
                report
                    .error(
                        "system-account",
                        span,
                        format!("a system account has no `{key}`: nobody logs in with it"),
                    )
                    .hint("leave `system` out for an account of a person");
            }
        }
    }
    let mut ssh_keys: Vec<Text<'_>> = fields.text("ssh_key", report).into_iter().map(Text::bare).collect();
    ssh_keys.extend(fields.list("ssh_keys", report));
    let groups =
        fields.list("groups", report).into_iter().filter_map(|word| parse_name(word, report)).collect();
    User {
        name,
        system,
        home: fields.string("home", report),
        shell: fields.string("shell", report),
        groups,
        ssh_keys: ssh_keys.into_iter().filter_map(|key| ssh_key(key, report)).collect(),
        password_hash: fields.string("password_hash", report),
        admin,
    }
}

fn ssh_key(text: Text<'_>, report: &mut Reporter) -> Option<Spanned<String>> {
    match check_ssh_key(text.as_str()) {
        Ok(()) => Some(text.with(text.as_str().to_owned())),
        Err(wrong) => {
            // The text itself is not repeated: it may be a private key.
            report
                .error(
                    "not-a-public-key",
                    text.span(),
                    format!("this is not a public SSH key: {}", wrong.reason),
                )
                .maybe_hint(wrong.hint);
            None
        }
    }
}

/// A line of authorized_keys without options: type, base64 whose first string repeats the type (RFC 4253 §6.6), comment.
fn check_ssh_key(text: &str) -> Result<(), Wrong> {
    const TYPES: [&str; 7] = [
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    ];
    if text.contains("PRIVATE KEY") {
        return Err(Wrong::because("it is a private key, which belongs nowhere but with its owner")
            .hint("copy the line in the `.pub` file"));
    }
    let mut words = text.split_whitespace();
    let kind = words.next().unwrap_or_default();
    if !TYPES.contains(&kind) {
        return Err(Wrong::because("it begins with its type")
            .hint("copy the line in the `.pub` file: `ssh-ed25519 AAAA…`"));
    }
    let damaged =
        || Wrong::because("its base64 part is damaged").hint("copy the whole line of the `.pub` file again");
    let blob = words.next().and_then(parse_base64).ok_or_else(damaged)?;
    let (length, rest) = blob.split_first_chunk::<4>().ok_or_else(damaged)?;
    let length = u32::from_be_bytes(*length) as usize;
    if rest.get(..length) == Some(kind.as_bytes()) && rest.len() > length { Ok(()) } else { Err(damaged()) }
}

/// The files, in the order written.
pub(super) fn lower_files(node: &Node<'_>, report: &mut Reporter) -> Vec<FileSpec> {
    let mut files: Vec<FileSpec> = Vec::new();
    for (key, entry) in map_entries(node, "paths", report) {
        if let Err(wrong) = paths::check_absolute(key.as_str()) {
            impossible("path", key, wrong, report);
            continue;
        }
        if key.as_str() == "/" {
            impossible("path", key, Wrong::because("`/` itself cannot be replaced"), report);
            continue;
        }
        if let Some(first) = files.iter().find(|file| file.path.value == key.as_str()) {
            report
                .error("duplicate-key", key.span(), format!("the file `{}` is written twice", key.as_str()))
                .related(first.path.span, "first written here");
            continue;
        }
        files.extend(file(key, entry, report));
    }
    files
}

fn file(path: Text<'_>, entry: &Node<'_>, report: &mut Reporter) -> Option<FileSpec> {
    if entry.pending {
        return None;
    }
    let path = path.with(path.as_str().to_owned());
    if let Some(block) = &entry.block {
        let source = FileSource::Inline(block.clone());
        return Some(FileSpec { path, source, mode: None, owner: None });
    }
    // The first word of the line may be the source.
    let mut nodes = entry.properties();
    let mut source = None;
    if nodes.first().is_some_and(|first| first.value.is_none()) {
        source = Some(nodes.remove(0).text.bare());
    }
    let fields =
        Fields::read(&FILE, entry.span(), nodes.into_iter().chain(entry.children.iter().cloned()), report);
    let named = fields.text("source", report).map(Text::bare);
    let content = fields.node("content");
    let inline = content.and_then(|node| node.block.clone());
    if let Some(node) = content.filter(|node| node.block.is_none()) {
        report
            .error("missing-value", node.span(), "`content` takes a block")
            .hint("write `content: |` and the text on deeper lines");
    }
    let mode = fields.text("mode", report).and_then(|mode| {
        let mode = mode.bare();
        u32::from_str_radix(mode.as_str(), 8).ok().map(|bits| mode.with(bits))
    });
    let owner = fields.text("owner", report).and_then(|owner| file_owner(owner.bare(), report));
    let place = source.or(named);
    if fields.has("source") && source.is_some() || place.is_some() && content.is_some() {
        report
            .error("source-twice", entry.span(), format!("`{}` has two sources", path.value))
            .hint("write one of: a path, `source:`, `content:`");
        return None;
    }
    let sha256 = fields.text("sha256", report).and_then(|digest| {
        let digest = digest.bare();
        digest.as_str().parse().ok().map(|parsed| digest.with(parsed))
    });
    if let Some(span) = fields.span("sha256").filter(|_| content.is_some()) {
        report
            .error("digest-of-content", span, "`sha256` is for a file beside the manifest")
            .hint("leave it out: `content` is in the manifest, where everybody sees it");
    }
    let source = match (place, inline) {
        (Some(text), _) => match paths::check_beside(text.as_str()) {
            Ok(()) => FileSource::Path { path: text.with(text.as_str().to_owned()), sha256 },
            Err(wrong) => {
                impossible("source", text, wrong, report);
                return None;
            }
        },
        (None, Some(block)) => FileSource::Inline(block),
        (None, None) => {
            if content.is_none() && fields.is_complete() && !fields.has("source") && !entry.any_pending() {
                report
                    .error("missing-key", entry.span(), format!("nothing says what is in `{}`", path.value))
                    .hint(
                        "write the path of a file beside the manifest, or `|` and the text on deeper lines",
                    );
            }
            return None;
        }
    };
    Some(FileSpec { path, source, mode, owner })
}

fn file_owner(owner: Text<'_>, report: &mut Reporter) -> Option<Spanned<(UserName, UserName)>> {
    let (user, group) = owner.split_once(":").unwrap_or((owner, owner));
    let user = parse_name::<UserName>(user, report);
    let group = parse_name::<UserName>(group, report);
    Some(owner.with((user?.value, group?.value)))
}

/// The secrets, in the order written.
pub(super) fn lower_secrets(node: &Node<'_>, report: &mut Reporter) -> Vec<Secret> {
    let mut secrets: Vec<Secret> = Vec::new();
    for (key, entry) in map_entries(node, "secret names", report) {
        let Some(name) = parse_name::<SecretName>(key, report) else { continue };
        if let Some(first) = secrets.iter().find(|secret| secret.name.value == name.value) {
            report
                .error("duplicate-key", name.span, format!("the secret `{}` is written twice", name.value))
                .related(first.name.span, "first written here");
            continue;
        }
        let source = secret_source(entry, report).unwrap_or(Spanned::default_value(SecretSource::Supplied));
        secrets.push(Secret { name, source });
    }
    secrets
}

fn secret_source(entry: &Node<'_>, report: &mut Reporter) -> Option<Spanned<SecretSource>> {
    if entry.pending {
        return None;
    }
    let hint = "write `generate 32 bytes` or `supplied`";
    // What is not understood is not repeated: it may be the secret.
    let refuse = |span: Span, report: &mut Reporter| {
        report.error("secret-in-clear", span, "this does not say where the secret comes from").hint(hint);
    };
    if let Some(value) = entry.value {
        super::fields::no_deeper_lines(entry, report);
        let words = value.bare().words();
        let words: Vec<&str> = words.iter().map(|word| word.as_str()).collect();
        return match words.as_slice() {
            ["supplied"] => Some(value.with(SecretSource::Supplied)),
            ["generate", number, "bytes"] => match crate::values::parse_integer(number, 16, 512) {
                Ok(number) => {
                    u16::try_from(number).ok().map(|bytes| value.with(SecretSource::Generate { bytes }))
                }
                Err(wrong) => {
                    impossible("generate", value, wrong, report);
                    None
                }
            },
            _ => {
                refuse(value.span(), report);
                None
            }
        };
    }
    if entry.block.is_some()
        || entry.children.iter().any(|child| child.key.is_none_or(|key| SECRET.key(key.as_str()).is_none()))
    {
        refuse(entry.span(), report);
        return None;
    }
    let fields = Fields::of(&SECRET, entry, report);
    let supplied = fields.flag("supplied", report);
    let bytes = fields.integer::<u16>("generate", report);
    match (bytes, supplied) {
        (Some(bytes), None) => Some(Spanned::new(SecretSource::Generate { bytes: bytes.value }, bytes.span)),
        (None, Some(supplied)) if supplied.value => Some(Spanned::new(SecretSource::Supplied, supplied.span)),
        _ => {
            if !entry.any_pending() && !fields.has("generate") {
                refuse(entry.span(), report);
            } else if fields.has("generate") && fields.has("supplied") {
                report
                    .error("secret-in-clear", entry.span(), "a secret is generated or supplied, not both")
                    .hint(hint);
            }
            None
        }
    }
}
