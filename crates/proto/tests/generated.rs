//! Compares the committed generated code with what `proto/` says. Run with
//! `TIDINGS_WRITE_GENERATED=1` to write it (`cargo xtask proto` does).

use std::{fs, path::Path};

#[test]
#[expect(clippy::disallowed_methods, reason = "a switch of the developer, not a setting")]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let protos = root.join("../../proto");
    let files = ["tidings/v1/records.proto", "tidings/v1/registry.proto"];
    let descriptors = protox::compile(files, [&protos]).unwrap();
    let out = tempfile::tempdir().unwrap();
    prost_build::Config::new().out_dir(out.path()).bytes(["."]).compile_fds(descriptors).unwrap();
    let fresh = fs::read_to_string(out.path().join("tidings.v1.rs")).unwrap();
    let committed = root.join("src/generated/tidings.v1.rs");
    if std::env::var("TIDINGS_WRITE_GENERATED").is_ok() {
        fs::write(&committed, &fresh).unwrap();
    }
    assert!(
        fs::read_to_string(&committed).unwrap() == fresh,
        "crates/proto/src/generated is stale: run `cargo xtask proto`"
    );
}
