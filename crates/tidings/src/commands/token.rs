//! `tidings token`: prints a token of the local issuer. Reads the issuer's key
//! file and nothing else, so it works while the system runs.

use anyhow::{Context as _, anyhow};

use super::{Failure, environment, say};
use crate::{
    cli::TokenArgs,
    settings::{self, Flags, Source},
};

/// What a scope may be.
const SCOPES: &[&str] = &["eds.read", "eds.write", "eds.publish", "admin"];

pub(crate) fn run(args: &TokenArgs) -> Result<(), Failure> {
    let flags = Flags { data: args.data.clone(), ..Flags::default() };
    let source = Source { file: args.config.as_deref(), environment: environment() };
    let settings = settings::load(&source, &flags)?;
    let scopes: Vec<String> =
        args.scope.iter().flat_map(|scope| scope.split_whitespace()).map(str::to_owned).collect();
    if scopes.is_empty() {
        return Err(Failure::Usage(anyhow!("--scope is empty; there are {}", SCOPES.join(", "))));
    }
    if let Some(unknown) = scopes.iter().find(|scope| !SCOPES.contains(&scope.as_str())) {
        return Err(Failure::Usage(anyhow!(
            "--scope {unknown:?} is unknown; there are {}",
            SCOPES.join(", ")
        )));
    }
    let needs_tenant = scopes.iter().any(|scope| scope == "eds.read" || scope == "eds.write");
    if needs_tenant && args.pm.is_none() && args.issuer.is_none() {
        return Err(Failure::Usage(anyhow!("eds.read and eds.write need --pm or --issuer")));
    }
    if *args.ttl > settings.token_max_ttl || args.ttl.is_zero() {
        return Err(Failure::Usage(anyhow!(
            "--ttl {} must be more than 0 and at most {} (setting auth.max_ttl)",
            settings::duration_text(*args.ttl),
            settings::duration_text(settings.token_max_ttl)
        )));
    }
    crate::app::check_data_directory(&settings.data)?;
    let token = crate::app::sign_token(
        &settings.data,
        &crate::app::TokenRequest {
            subject: "tidings-cli".to_owned(),
            issuer: args.issuer.clone(),
            pm: args.pm,
            scopes,
            ttl: *args.ttl,
        },
    )
    .with_context(|| {
        format!("cannot use the issuer's key in {}", settings.data.join("keys").display())
    })?;
    say(token);
    Ok(())
}
