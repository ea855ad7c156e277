//! What a manifest says, apart from how it is written: the same text for the same wish.

use serde_json::Value;

use crate::model::Appliance;

/// Lists whose order says nothing, because each item has a name or is one.
const UNORDERED: [&str; 18] = [
    "alerts",
    "allow",
    "allowed_ips",
    "capabilities",
    "containers",
    "environment",
    "files",
    "groups",
    "packages",
    "peers",
    "planes",
    "properties",
    "secrets",
    "services",
    "ssh_keys",
    "users",
    "verify",
    "zones",
];

impl Appliance {
    /// One line that is the same for manifests that differ in comments, empty lines, notation and the order of keys alone.
    /// What a manifest does not state leaves nothing in it, so that it stays the same when manifests learn new words.
    pub fn normal_form(&self) -> String {
        let value = serde_json::to_value(self).expect("the model is plain data");
        let mut text = String::new();
        write(&value, "", 0, &mut text);
        text
    }
}

/// Writes a value that is the field `name` of something, `depth` fields below the appliance.
fn write(value: &Value, name: &str, depth: usize, text: &mut String) {
    let written = |value: &Value, name: &str| {
        let mut text = String::new();
        write(value, name, depth + 1, &mut text);
        text
    };
    let (open, parts, close) = match value {
        Value::Object(fields) => {
            let said = fields.iter().filter(|(name, value)| *name != "span" && says_something(value));
            let mut said: Vec<String> =
                said.map(|(name, value)| format!("{name}:{}", written(value, name))).collect();
            said.sort_unstable();
            ('{', said, '}')
        }
        Value::Array(items) => {
            let mut items: Vec<String> = items.iter().map(|item| written(item, "")).collect();
            // A service writes to the first of its datasets, and to others besides.
            if UNORDERED.contains(&name) || (name, depth) == ("datasets", 1) {
                items.sort_unstable();
            }
            ('[', items, ']')
        }
        plain => return text.push_str(&plain.to_string()),
    };
    text.push(open);
    text.push_str(&parts.join(","));
    text.push(close);
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use crate::check;

    const RECIPE: &str = include_str!("../../../recipes/webapp/appliance.manifest");

    fn normal_form(text: &str) -> String {
        let checked = check(text);
        checked.appliance.unwrap_or_else(|| panic!("{:#?}", checked.diagnostics)).normal_form()
    }

    fn with(changes: &[(&str, &str)]) -> String {
        changes.iter().fold(RECIPE.to_owned(), |text, (old, new)| {
            assert!(text.contains(old), "{old}");
            text.replace(old, new)
        })
    }

    #[test]
    fn how_it_is_written_does_not_count() {
        let want = normal_form(RECIPE);
        let (cache, db) = (
            "  rpool/srv/webapp:     recordsize=128k  compression=lz4  atime=off\n",
            "  rpool/srv/webapp-db:  recordsize=8k    compression=lz4  atime=off  mountpoint=/var/lib/postgresql\n",
        );
        let swapped = format!(
            "{db}{}",
            cache.replace("recordsize=128k  compression=lz4", "compression=lz4  recordsize=128k")
        );
        for same in [
            RECIPE.replace('\n', "\n\n"),
            RECIPE.replace('\n', "\r\n"),
            RECIPE.replace("\npackages:", "\n// Another word.\npackages:"),
            with(&[(&format!("{cache}{db}"), &swapped)]),
            with(&[(
                "distro:      Debian 13\nprofile:     server\n",
                "profile:  server\ndistro:  Debian 13\n",
            )]),
            with(&[("curl, gunicorn,", "gunicorn, curl,")]),
            with(&[(
                "    user:         webapp\n    after:        postgresql@17-main.service\n",
                "    after:        postgresql@17-main.service\n    user:         webapp\n",
            )]),
            with(&[(
                "packages:  curl, gunicorn, python3-flask, python3-psycopg2, postgresql\n",
                "packages:\n  - curl\n  - gunicorn\n  - python3-flask\n  - python3-psycopg2\n  - postgresql\n",
            )]),
        ] {
            assert_eq!(normal_form(&same), want, "{same}");
        }
    }

    #[test]
    fn what_it_says_counts() {
        let steps = (
            "ksnap rpool/srv/webapp-db pre-upgrade\n  3. apt-get -y upgrade",
            "apt-get -y upgrade\n  3. ksnap rpool/srv/webapp-db pre-upgrade",
        );
        let changes = [
            ("atime=off\n", "\n"),
            ("recordsize=8k", "recordsize=16k"),
            ("TCP 8000 guest book", "TCP 8000 another book"),
            ("--workers 2", "--workers 1"),
            ("curl, ", ""),
            ("webapp:  system", "webapp: "),
            ("max_exposure: 4.0", "max_exposure: 3.0"),
            ("timeout:  20s", "timeout:  21s"),
            ("hourly:          48", "hourly:          47"),
            ("ops@example.com", "dev@example.com"),
            (
                ":  app.py\n",
                ":  app.py  sha256=ab3c0f5e8d7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c\n",
            ),
            steps,
        ];
        let mut all: Vec<String> = changes.iter().map(|change| normal_form(&with(&[*change]))).collect();
        all.push(normal_form(RECIPE));
        let many = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), many, "each is a wish of its own");
    }

    #[test]
    fn it_stays_the_same_from_release_to_release() {
        // Histories hold digests of it.
        let small = "name: a\ndistro: Debian 13\nprofile: server\nzfs_layout:\n  rpool/srv/a: atime=off\nfiles:\n  /etc/a: a\n";
        expect_test::expect![[r#"{datasets:[{mountpoint:{value:"/srv/a"},name:{value:"rpool/srv/a"},properties:[{name:"atime",value:"off"}]}],distro:{value:{family:"debian",release:"13"}},dr_procedure:{},files:[{path:{value:"/etc/a"},source:{path:{value:"a"}}}],monitoring:{},name:{value:"a"},outbound:{},pool:"rpool",profile:{value:"server"},snapshots:{daily:30,frequent_period_minutes:15,frequently:0,hourly:36,monthly:3,template:"production",weekly:0,yearly:0},upgrade_procedure:{}}"#]].assert_eq(&normal_form(small));
    }
}
