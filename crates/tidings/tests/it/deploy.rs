//! What `deploy/` and `docker-compose.yml` hold fits the program.

use std::{collections::BTreeSet, fs, path::Path};

use tidings_testkit::certificate::{Authority, Validity};

use crate::stage::{Ended, run_with};

const ROLES: [&str; 4] = ["router", "sender", "recorder", "api"];
const PASSWORD: (&str, &str) = ("TIDINGS_KAFKA__SASL__PASSWORD", "secret");

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// Runs `config COMMAND` with a role's example settings, whose files are in a folder of
/// the test.
fn config(folder: &Path, command: &str, role: &str) -> Ended {
    let installed = folder.to_str().unwrap();
    let text = read(&format!("deploy/settings/{role}.toml")).replace("/etc/tidings", installed);
    fs::write(folder.join("settings.toml"), text).unwrap();
    run_with(folder, &["config", command, "--config", "settings.toml"], "", &[PASSWORD])
}

#[test]
fn the_example_settings_load() {
    let folder = tempfile::tempdir().unwrap();
    let tls = folder.path().join("tls");
    fs::create_dir(&tls).unwrap();
    let authority = Authority::new();
    fs::write(tls.join("kafka-ca.pem"), authority.root_pem()).unwrap();
    for role in ROLES {
        let identity = authority.issue(&["localhost"], Validity::Now);
        fs::write(tls.join(format!("{role}.pem")), identity.certificate_pem()).unwrap();
        fs::write(tls.join(format!("{role}.key")), identity.key_pem()).unwrap();
        let checked = config(folder.path(), "check", role);
        assert_eq!(checked.code, Some(0), "{role}: {}", checked.err);
    }
    let shown = config(folder.path(), "show", "api").out;
    assert!(shown.contains("sasl.password") && !shown.contains("secret"), "{shown}");
}

#[test]
fn the_compose_file_starts_each_role_with_settings_that_load() {
    let folder = tempfile::tempdir().unwrap();
    let compose = read("docker-compose.yml");
    for role in ROLES {
        assert!(compose.contains(&format!("  {role}:\n    <<: *tidings\n    command: {role}\n")));
    }
    let settings: BTreeSet<(&str, &str)> = compose
        .lines()
        .filter_map(|line| line.trim().split_once(": ").filter(|it| it.0.starts_with("TIDINGS_")))
        .map(|(name, value)| (name, value.trim_matches(['"', '\''])))
        .collect();
    assert!(settings.len() >= 7, "{settings:?}");
    let settings: Vec<(&str, &str)> = settings.into_iter().collect();
    let checked = run_with(folder.path(), &["config", "check"], "", &settings);
    assert_eq!(checked.code, Some(0), "{}", checked.err);
}

#[test]
fn the_unit_starts_a_role_with_its_settings() {
    let unit = read("deploy/tidings@.service");
    let start = "ExecStart=/usr/local/bin/tidings %i --config /etc/tidings/%i.toml\n";
    assert!(unit.contains(start), "{unit}");
    for role in ROLES {
        let settings = read(&format!("deploy/settings/{role}.toml"));
        assert!(settings.contains(&format!("data = \"/var/lib/tidings/{role}\"")), "{role}");
    }
}

#[test]
fn the_alert_rules_ask_for_metrics_that_there_are() {
    let list = read("docs/metrics.md");
    let rules = read("deploy/alerts.yml");
    let mut asked = 0;
    for line in rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")) {
        let words = line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        for name in words.filter(|word| word.starts_with("tidings_")) {
            let (family, kind) = match name.strip_suffix("_total") {
                Some(family) => (family, "counter"),
                None => (name, "gauge"),
            };
            assert!(list.contains(&format!("| `{family}` | {kind}: ")), "{name}");
            asked += 1;
        }
    }
    assert!(asked >= 8, "{asked}");
}
