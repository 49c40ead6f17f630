//! What the commands print, and how they end.

use std::{os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::stage::{Ended, Stage, TENANTS, binary, event, run_in, run_with};

fn marked(marker: &str) -> String {
    event(&format!(r#"{{"messageId":"{marker}","publicToken":"t"}}"#))
}

#[tokio::test]
async fn tenants_apply_adds_changes_prunes_and_refuses_as_a_whole() {
    let stage = Stage::start().await;
    let applied = |tenants: &str, more: &[&str]| {
        let ended = stage.apply(tenants, more);
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        ended.out
    };
    assert_eq!(applied(TENANTS, &[]), "added 0 changed 0 removed 0\n");
    let renamed = TENANTS.replace("Issuer 7002", "Eight");
    assert_eq!(applied(&renamed, &[]), "added 0 changed 1 removed 0\n");
    let grown = format!("{renamed}[[products]]\nid = 5\nprogramme_manager = 21\n");
    assert_eq!(applied(&grown, &[]), "added 1 changed 0 removed 0\n");
    assert_eq!(applied(&renamed, &["--prune"]), "added 0 changed 0 removed 1\n");

    let bad = format!(
        "{renamed}[[programme_managers]]\nid = 30\ncode = \"20\"\nissuer = \"7001\"\n\
         [[products]]\nid = 6\nprogramme_manager = 77\n[[products]]\nid = 7\nprogramme_manager = 20\n"
    );
    let refused = stage.apply(&bad, &[]);
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
    let at = |line: &str| 1 + bad.lines().position(|text| text == line).unwrap();
    let code = format!("line {} `code = \"20\"`", at("code = \"20\""));
    let product = format!("line {} `programme_manager = 77`", at("programme_manager = 77"));
    for part in [&code, "programmeManagers[3].code", &product, "products[2].programmeManager"] {
        assert!(refused.err.contains(part), "{part}: {}", refused.err);
    }
    // None of it was applied: product 7 is still to be added.
    let seven = format!("{renamed}[[products]]\nid = 7\nprogramme_manager = 20\n");
    assert_eq!(applied(&seven, &[]), "added 1 changed 0 removed 0\n");

    let ended = stage.apply("= =", &[]);
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    let secret = stage.apply(&format!("{TENANTS}[[merchants]]\nkey = \"\"\nprogramme_manager = 20\nsource_keys = [{{ id = \"\", value = \"hidden-value\" }}]\n"), &[]);
    assert_eq!(secret.code, Some(1));
    assert!(!secret.err.contains("hidden-value"), "{}", secret.err);

    for (more, line, what) in [
        ("[[products]]\nid = 8\n", "`[[products]]`", "products[2].programmeManager: is required"),
        ("[[products]]\nid = \"x\"\nprogramme_manager = 20\n", "`id = \"x\"`", "products[2].id"),
        (
            "[[merchants]]\nkey = \"m2\"\nprogramme_manager = 20\nsource_keys = [{ id = \"a\" }]\n",
            "source_keys",
            "merchants[1].sourceKeys[0].value: is required",
        ),
        (
            "[[merchants]]\nkey = \"m2\"\nprogramme_manager = 20\n\
             source_keys = [{ id = \"a\", value = \"hidden-value\", value_file = \"f\" }]\n",
            "",
            "both value and value_file",
        ),
    ] {
        let refused = stage.apply(&format!("{TENANTS}{more}"), &[]);
        assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""), "{more}");
        assert!(refused.err.contains(what) && refused.err.contains(line), "{}", refused.err);
        assert!(!refused.err.contains("hidden-value"), "{}", refused.err);
    }
}

#[tokio::test]
async fn a_server_that_does_not_take_the_directorys_tokens_says_what_would_help() {
    let stage = Stage::with(false, &[]).await;
    let refused = stage.apply(TENANTS, &[]);
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
    for part in ["UNAUTHORIZED: ", "auth.local_issuer", "--url and --token"] {
        assert!(refused.err.contains(part), "{part}: {}", refused.err);
    }
    let refused = stage.run(&["publish", "-"], &marked("x"));
    assert!(refused.err.contains("auth.local_issuer"), "{}", refused.err);
}

#[tokio::test]
async fn an_account_of_a_topic_that_is_not_there_is_no_clean_one() {
    let stage = Stage::start().await;
    let ended = stage.run(&["account", "--topic", "tidings.events.140"], "");
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""));
    assert!(ended.err.contains("NOT_FOUND topic"), "{}", ended.err);
    let ended = stage.run(&["account", "--topic", "104"], "");
    assert_eq!(ended.code, Some(0), "{}", ended.err);
}

/// A flag wins over the environment: this command is about the directory it names.
#[tokio::test]
async fn a_named_directory_wins_over_the_url_of_the_environment() {
    let stage = Stage::start().await;
    let elsewhere = [("TIDINGS_URL", "http://127.0.0.1:9"), ("TIDINGS_TOKEN", "x")];
    let data = stage.data();
    let named = ["account", "--topic", "104", "--data", data.to_str().unwrap()];
    let ended = run_with(stage.folder.path(), &named, "", &elsewhere);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let unnamed = run_with(stage.folder.path(), &named[..3], "", &elsewhere);
    assert_eq!(unnamed.code, Some(1));
    assert!(unnamed.err.contains("127.0.0.1:9"), "{}", unnamed.err);
    let by_environment = [("TIDINGS_DATA", data.to_str().unwrap())];
    let ended = run_with(stage.folder.path(), &named[..3], "", &by_environment);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
}

/// Whoever reads the answer may stop reading.
#[tokio::test]
async fn a_closed_stdout_is_no_panic() {
    let stage = Stage::start().await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = std::process::Command::new(binary())
        .args(["account", "--data", stage.data().to_str().unwrap()])
        .stdout(writer)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.as_ref()), (Some(0), ""));
}

#[test]
fn a_token_without_a_scope_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run_in(folder.path(), &["token", "--data", "data", "--scope", " "], "");
    assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""));
    let long = ["token", "--data", "data", "--scope", "admin", "--ttl", "90d"];
    let ended = run_in(folder.path(), &long, "");
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("--ttl 90d must be more than 0 and at most 24h"), "{}", ended.err);
}

#[test]
fn a_slip_in_the_name_of_the_directory_makes_no_key_there() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("other")).unwrap();
    std::fs::write(folder.path().join("other/notes.txt"), "mine").unwrap();
    for data in ["typo", "other"] {
        for arguments in [
            &["token", "--data", data, "--scope", "admin"][..],
            &["account", "--data", data],
            &["quarantine", "list", "--data", data],
        ] {
            let ended = run_in(folder.path(), arguments, "");
            assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{arguments:?}");
            let named = format!("{data} is not a data directory of Tidings");
            assert!(ended.err.contains(&named), "{arguments:?}: {}", ended.err);
        }
    }
    assert!(!folder.path().join("typo").exists());
    assert!(!folder.path().join("other/keys").exists());
}

#[tokio::test]
async fn client_commands_reach_a_server_by_url_and_by_directory() {
    let mut stage = Stage::start().await;
    let file = stage.folder.path().join("tenants.toml");
    let (base, token) = (stage.base(), stage.token(&["--scope", "admin"]));
    let at = stage.folder.path();
    let apply = ["tenants", "apply", file.to_str().unwrap()];
    let by_flags = [&apply[..], &["--url", &base, "--token", &token]].concat();
    assert_eq!(run_in(at, &by_flags, "").code, Some(0));
    let environment = [("TIDINGS_URL", base.as_str()), ("TIDINGS_TOKEN", token.as_str())];
    assert_eq!(run_with(at, &apply, "", &environment).code, Some(0));
    let bad = [&apply[..], &["--url", &base, "--token", "x"]].concat();
    let refused = run_in(at, &bad, "");
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("UNAUTHORIZED"), "{}", refused.err);

    // Killed: the address file stays and names nobody; the store is opened.
    stage.kill();
    assert!(stage.data().join("address").exists());
    let ended = stage.run(&["publish", "-"], &marked("offline"));
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "accepted 1\n"), "{}", ended.err);
    stage.serve().await;
    tidings_e2e::wait_for("the event to be routed", crate::stage::PATIENCE, async || {
        let ended = stage.run(&["account", "--json", "--topic", "tidings.events.104"], "");
        let account: Value = serde_json::from_str(&ended.out)?;
        let rows = account["partitions"].as_array().into_iter().flatten();
        let committed: u64 = rows.filter_map(|row| row["committed"].as_u64()).sum();
        Ok((committed == 1).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_clean_end_takes_the_address_with_it() {
    let mut stage = Stage::start().await;
    let address = stage.data().join("address");
    assert_eq!(std::fs::read_to_string(&address).unwrap(), format!("{}\n", stage.base()));
    for name in ["master.key", "issuer.key"] {
        let mode = stage.data().join("keys").join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let second = stage.run(&["serve", "--dev", "--listen", "127.0.0.1:0"], "");
    assert_eq!(second.code, Some(1), "{}", second.err);
    assert!(address.exists(), "a second server does not touch the first one's file");
    assert_eq!(stage.stop().await, Some(0));
    assert!(!address.exists());
}

#[tokio::test]
async fn the_address_of_one_that_crashed_is_gone_before_the_next_one_is_ready() {
    let mut stage = Stage::start().await;
    stage.kill();
    let address = stage.data().join("address");
    assert!(address.exists());
    // It never gets ready: its port is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let ended = stage.run(&["serve", "--dev", "--listen", &listen], "");
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(!address.exists());
}

#[tokio::test]
async fn an_endpoint_that_hangs_does_not_hold_up_the_end() {
    const GRACE: Duration = Duration::from_secs(4);
    let mut stage = Stage::with(true, &[("TIDINGS_SHUTDOWN__GRACE", "4s")]).await;
    assert_eq!(stage.apply(TENANTS, &[]).code, Some(0));
    let endpoint = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", endpoint.local_addr().unwrap());
    let body = json!({"events": [104], "config": {"url": url}});
    let answer = stage.manager("20").json("POST", "/api/v1/Webhooks", &body).await.unwrap();
    assert_eq!(answer.status, 201);
    stage.publish(&marked("x")).await;
    let held = endpoint.accept().await.unwrap();
    assert_eq!(tokio::time::timeout(GRACE, stage.stop()).await, Ok(Some(0)));
    drop(held);
    assert!(!stage.data().join("address").exists());
}

#[tokio::test]
async fn publish_prints_one_line_and_names_the_bad_field() {
    let stage = Stage::start().await;
    let lines: String =
        (0..1200).map(|number| format!("{}\n", marked(&format!("m{number}")))).collect();
    let ended = stage.run(&["publish", "-"], &lines);
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "accepted 1200\n"), "{}", ended.err);
    assert_eq!(ended.err, "", "progress is for a terminal");

    let ended = stage.run(&["publish", "-", "--json"], &marked("j"));
    let answer: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(answer["status"], "success");
    assert_eq!(answer["response"]["accepted"], 1);
    let item = &answer["response"]["content"][0];
    assert_eq!(item["topic"], "tidings.events.104");
    assert_eq!(item["uid"].as_str().unwrap().len(), 64);

    let bad = format!("{}\n{}\n", marked("x"), event(r#"{"messageId":"y"}"#));
    let ended = stage.run(&["publish", "-"], &bad);
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""));
    assert!(ended.err.contains("payload.publicToken"), "{}", ended.err);
    assert!(ended.err.contains("line 2"), "{}", ended.err);
}

#[tokio::test]
async fn bad_records_are_set_aside_shown_and_redriven() {
    let stage = Stage::start().await;
    let raw = stage.run(&["publish", "-", "--raw", "tidings.events.104"], "not JSON\n");
    assert_eq!((raw.code, raw.out.as_str()), (Some(0), "accepted 1\n"), "{}", raw.err);
    let list = async |count: usize| {
        tidings_e2e::wait_for("the quarantine", crate::stage::PATIENCE, async || {
            let ended = stage.run(&["quarantine", "list", "--json"], "");
            let list: Vec<Value> = serde_json::from_str(&ended.out)?;
            Ok((list.len() == count).then_some(list))
        })
        .await
        .unwrap()
    };
    let item = list(1).await.remove(0);
    let names: Vec<&String> = item.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        ["field", "id", "offset", "partition", "reason", "redriven", "time", "topic"]
    );
    assert_eq!(
        (&item["reason"], &item["field"], &item["redriven"]),
        (&json!("BAD_JSON"), &json!(""), &json!(false))
    );
    let id = item["id"].as_str().unwrap();
    let shown = stage.run(&["quarantine", "show", id], "");
    assert!(shown.out.contains("not JSON"), "{}", shown.out);
    assert_eq!(stage.run(&["quarantine", "show", "nothing"], "").code, Some(1));

    // Unchanged it is bad again; mended it is routed.
    assert_eq!(stage.run(&["quarantine", "redrive", id], "").code, Some(0));
    let two = list(2).await;
    assert!(two.iter().any(|item| item["id"] == id && item["redriven"] == true), "{two:?}");
    let mended = stage.folder.path().join("mended.json");
    std::fs::write(&mended, marked("mended")).unwrap();
    let ended = stage.run(&["quarantine", "redrive", id, "--body", mended.to_str().unwrap()], "");
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let rows = tidings_e2e::wait_for("the account", crate::stage::PATIENCE, async || {
        let ended = stage.run(&["account", "--json", "--topic", "tidings.events.104"], "");
        let account: Value = serde_json::from_str(&ended.out)?;
        assert_eq!(account["agree"], true, "{account}");
        let rows = account["partitions"].as_array().cloned().unwrap_or_else(Vec::new);
        let sum = |name: &str| rows.iter().filter_map(|row| row[name].as_u64()).sum::<u64>();
        Ok((sum("quarantined") == 2 && sum("filtered") == 1).then_some(rows))
    })
    .await
    .unwrap();
    let names: Vec<&String> = rows[0].as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        [
            "cancelled",
            "committed",
            "delivered",
            "duplicate",
            "expired",
            "filtered",
            "filteredBy",
            "from",
            "notifications",
            "partition",
            "pending",
            "quarantined",
            "routed",
            "skipped",
            "superseded",
            "topic",
            "undelivered"
        ]
    );
}

/// Runs `config WHAT` in `folder` with a settings file.
fn config_in(folder: &Path, text: &str, what: &[&str], environment: &[(&str, &str)]) -> Ended {
    std::fs::write(folder.join("tidings.toml"), text).unwrap();
    let arguments = [&["config"], what, &["--config", "tidings.toml"]].concat();
    run_with(folder, &arguments, "", environment)
}

#[test]
fn what_the_kafka_client_does_not_take_is_named_without_a_broker() {
    let folder = tempfile::tempdir().unwrap();
    let config = |text: &str, what: &[&str], environment: &[(&str, &str)]| {
        config_in(folder.path(), text, what, environment)
    };
    for (text, environment, key) in [
        ("[kafka]\n\"foo.bar\" = 1", &[][..], "kafka.foo.bar"),
        ("[kafka]\nfoo.bar = 1", &[], "kafka.foo.bar"),
        ("[kafka]\nacks = 1", &[], "kafka.acks"),
        ("[kafka]\n\"socket.timeout.ms\" = \"abc\"", &[], "kafka.socket.timeout.ms"),
        ("[kafka]\n\"socket.timeout.ms\" = 1", &[], "kafka.socket.timeout.ms"),
        ("", &[("TIDINGS_KAFKA__GROUP.ID", "mine")], "kafka.group.id"),
    ] {
        for what in ["check", "show"] {
            let ended = config(text, &[what], environment);
            assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{text}");
            assert!(ended.err.contains(key), "{key}: {}", ended.err);
        }
    }
    // What librdkafka takes one by one, and not together or not with these files.
    let sasl = "[kafka]\n\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanism\" = \"PLAIN\"\n\
                \"sasl.username\" = \"u\"\n\"sasl.password\" = \"hidden-value\"\n";
    assert_eq!(config(sasl, &["check"], &[]).code, Some(0));
    let ended = config(&format!("{sasl}\"ssl.ca.location\" = \"nowhere\""), &["check"], &[]);
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("ssl.ca.location"), "{}", ended.err);
    let shown = config(sasl, &["show"], &[]);
    assert!(shown.out.contains("\"sasl.password\" = \"***\""), "{}", shown.out);
    assert!(!shown.out.contains("hidden-value"), "{}", shown.out);
}

#[test]
fn settings_come_from_the_file_the_environment_and_flags_in_this_order() {
    let folder = tempfile::tempdir().unwrap();
    let config = |text: &str, what: &[&str], environment: &[(&str, &str)]| {
        config_in(folder.path(), text, what, environment)
    };
    for (text, environment, key) in [
        ("bogus = 1", &[][..], "bogus"),
        ("[delivery]\nmax_opne = 1", &[], "delivery.max_opne"),
        ("[delivery]\nmax_open = \"x\"", &[], "delivery.max_open"),
        ("[delivery]\nsuspend_after = \"soon\"", &[], "delivery.suspend_after"),
        ("[delivery]\ndefault_ladder = \"none\"", &[], "delivery.default_ladder"),
        ("[delivery.ladders]\nquick = []", &[], "delivery.ladders.quick"),
        ("[egress]\nallow = [\"x\"]", &[], "egress.allow"),
        ("[egress]\ndeny = [\"x\"]", &[], "egress.deny"),
        ("[metrics]\nlisten = \"x\"", &[], "metrics.listen"),
        ("region = 3", &[], "region"),
        ("[delivery]\ngone_count = 0", &[], "delivery.gone_count"),
        ("[egress]\nports = []", &[], "egress.ports"),
        ("[egress]\nports = [0]", &[], "egress.ports"),
        ("[eventlog]\nretention = \"0s\"", &[], "eventlog.retention"),
        (
            "[eventlog]\nretention = \"59m\"",
            &[],
            "eventlog.retention` (settings): must be at least 1h",
        ),
        ("[keys]\nretention = \"59s\"", &[], "keys.retention` (settings): must be at least 1m"),
        ("[slots]\ncheckpoint_interval = \"0s\"", &[], "slots.checkpoint_interval"),
        ("[fraud]\nanswer_window = \"0s\"", &[], "fraud.answer_window"),
        ("[listen]\naddress = \"x\"", &[], "listen.address"),
        (
            "[listen]\ntls_certificate = \"none.pem\"\ntls_key = \"none.pem\"",
            &[],
            "listen.tls_certificate",
        ),
        ("[events]\ntypes = \"nowhere\"", &[], "events.types"),
        ("[events.partitions]\n104 = 0", &[], "events.partitions"),
        ("[events.partitions]\n140 = 3", &[], "events.partitions"),
        (
            "[auth]\nissuers = [{ issuer = \"i\", audience = \"a\", jwks_url = \"nowhere\" }]",
            &[],
            "auth.issuers",
        ),
        ("", &[("TIDINGS_DELIVERY__MAX_OPNE", "1")], "delivery.max_opne"),
    ] {
        let ended = config(text, &["check"], environment);
        assert_eq!(ended.code, Some(2), "{text}");
        assert!(ended.err.contains(key), "{key}: {}", ended.err);
    }
    assert_eq!(config("[delivery]\nmax_open = 5", &["check"], &[]).code, Some(0));
    for good in ["[eventlog]\nretention = \"1h\"", "[keys]\nretention = \"1m\""] {
        assert_eq!(config(good, &["check"], &[]).code, Some(0), "{good}");
    }

    let shown =
        config("[delivery]\nmax_open = 5\n[listen]\naddress = \"127.0.0.1:1\"", &["show"], &[]);
    assert!(shown.out.contains("max_open = 5\n"), "{}", shown.out);
    assert!(shown.out.contains("suspend_after = \"72h\"\n"), "{}", shown.out);
    assert!(shown.out.contains("retention = \"90d\"\n"), "{}", shown.out);
    let environment = [
        ("TIDINGS_DELIVERY__MAX_OPEN", "6"),
        ("TIDINGS_EGRESS__PORTS", "[1, 2]"),
        ("TIDINGS_LISTEN__ADDRESS", "127.0.0.1:2"),
    ];
    let flags = ["show", "--listen", "127.0.0.1:3"];
    let shown = config("[delivery]\nmax_open = 5", &flags, &environment);
    for line in ["max_open = 6\n", "ports = [1, 2]\n", "address = \"127.0.0.1:3\"\n"] {
        assert!(shown.out.contains(line), "{line}{}", shown.out);
    }
    // What is shown is the whole of it: as a file it says the same.
    let text = "[events.partitions]\n104 = 5\n[fraud]\nanswer_window = \"5s\"\n\
                [listen]\nplain = true\n[egress]\nallow = [\"10.0.0.0/8\"]\n\
                deny = [\"10.1.0.0/16\"]\n[metrics]\nlisten = \"127.0.0.1:9\"\n";
    let shown = config(text, &["show"], &[]).out;
    for line in [
        "\"104\" = 5\n",
        "answer_window = \"5s\"\n",
        "plain = true\n",
        "deny = [\"10.1.0.0/16\"]\n",
        "listen = \"127.0.0.1:9\"\n",
    ] {
        assert!(shown.contains(line), "{line}{shown}");
    }
    assert_eq!(config(&shown, &["show"], &[]).out, shown);
    let shown = config("[delivery]\ndefault_ladder = \"standard\"", &["show", "--dev"], &[]);
    for line in ["default_ladder = \"standard\"\n", "per_scope = 1000\n", "gone_gap = \"1s\"\n"] {
        assert!(shown.out.contains(line), "{line}{}", shown.out);
    }
}
