//! A customer's URL: parsed once by the WHATWG rules, checked, kept canonical.
//!
//! Names are not resolved here. A name may be acceptable by itself and still lead
//! to an address that is not: the connector looks at the addresses of every
//! attempt ([`Target::may_dial`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderValue, Uri};
use ipnet::IpNet;
use tidings_types::AttemptCode;
use url::{Host, Url};

use crate::filter::{Class, classify};

/// Characters in a URL (`spec.md` §1.6.1).
const MAX_URL: usize = 255;
/// Characters in a host name and in one of its labels (RFC 1035).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;
/// Endings that no public name has (`reliability-security.md` §3.1).
const INTERNAL_SUFFIXES: &[&str] =
    &["localhost", "local", "internal", "svc", "cluster.local", "home.arpa", "onion"];

/// What the operator lets through (contract §3, `[egress]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Networks that the filter lets through. For them the port, literal and
    /// single-label rules do not hold.
    pub allow: Vec<IpNet>,
    /// Plain `http` URLs are accepted, by default on port 80.
    pub allow_http: bool,
    /// Ports that a URL may name.
    pub ports: Vec<u16>,
    /// Networks that are never dialled, whatever else lets them through.
    pub deny: Vec<IpNet>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { allow: Vec::new(), allow_http: false, ports: vec![443, 8443], deny: Vec::new() }
    }
}

impl Policy {
    /// The defaults of `--dev`: also endpoints on this machine, with or without TLS.
    pub fn dev() -> Self {
        Self { allow: Self::loopback(), allow_http: true, ..Self::default() }
    }

    /// The networks of this machine.
    pub fn loopback() -> Vec<IpNet> {
        let four = IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8);
        vec![four, IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST))]
    }

    /// Whether the operator lets this address through although it may not be
    /// public.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allow.iter().any(|net| net.contains(&address)) && !self.denies(address)
    }

    fn denies(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.deny.iter().any(|net| net.contains(&address))
    }

    /// Whether the operator lets any address through that is not public.
    fn lifts_rules(&self) -> bool {
        !self.allow.is_empty()
    }
}

/// Why a URL is refused. The text is for the client who registers it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct UrlRefusal {
    problem: &'static str,
    code: AttemptCode,
}

impl UrlRefusal {
    /// What the URL is, not where it leads, is refused.
    const fn form(problem: &'static str) -> Self {
        Self { problem, code: AttemptCode::BadConfig }
    }

    /// Where the URL leads is refused: its host, address or port.
    const fn place(problem: &'static str) -> Self {
        Self { problem, code: AttemptCode::BlockedAddress }
    }

    /// What an attempt comes to whose stored URL is refused so: the settings have
    /// changed since it was registered.
    pub const fn code(&self) -> AttemptCode {
        self.code
    }
}

/// A checked URL.
#[derive(Clone, Debug)]
pub struct Target {
    https: bool,
    host: Host<String>,
    port: u16,
    /// Some rule for public addresses is broken: only addresses that the operator
    /// lets through may be dialled.
    only_allowed: bool,
    uri: Uri,
    authority: HeaderValue,
    text: String,
}

impl Target {
    /// Parses and checks `text`.
    ///
    /// # Errors
    /// With the rule that it breaks.
    pub fn parse(text: &str, policy: &Policy) -> Result<Self, UrlRefusal> {
        check_text(text)?;
        let url = Url::parse(text).map_err(|_bad| UrlRefusal::form("not an absolute URL"))?;
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(UrlRefusal::form("the URL must begin with https://")),
        };
        // `https:host` and `https:///host` parse, but parsers do not agree on them.
        let rest = text.get(url.scheme().len()..).and_then(|rest| rest.strip_prefix("://"));
        if rest.is_none_or(|rest| rest.starts_with('/')) {
            return Err(UrlRefusal::form("the URL must begin with https:// and a host"));
        }
        if !url.username().is_empty() || url.password().is_some() || text_has_user(text) {
            return Err(UrlRefusal::form("the URL must not contain a user name or password"));
        }
        if url.fragment().is_some() {
            return Err(UrlRefusal::form("the URL must not contain a fragment"));
        }
        if url.as_str().len() > MAX_URL {
            return Err(UrlRefusal::form(
                "the URL is longer than 255 characters in its canonical form",
            ));
        }
        let host = url.host().ok_or(UrlRefusal::form("the URL names no host"))?.to_owned();
        let port = url.port_or_known_default().filter(|port| *port != 0);
        let port = port.ok_or(UrlRefusal::place("this port is not allowed"))?;
        let usual = policy.ports.contains(&port) || (!https && port == 80);
        let place = check_host(&host, policy)?;
        let only_allowed = match place {
            Place::Allowed => true,
            Place::Public if usual => false,
            Place::Public | Place::Internal if policy.lifts_rules() => true,
            Place::Public => return Err(UrlRefusal::place("this port is not allowed")),
            Place::Internal => return Err(UrlRefusal::place("this host name is not a public one")),
        };
        // After the place: a stored URL that breaks both rules leads where it may not.
        if !https && !policy.allow_http {
            return Err(UrlRefusal::form("the URL must begin with https://"));
        }
        let unusable = |_bad| UrlRefusal::form("not a URL that can be requested");
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let uri = Uri::try_from(path).map_err(|_bad| unusable(()))?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let authority = HeaderValue::try_from(authority).map_err(|_bad| unusable(()))?;
        Ok(Self { https, host, port, only_allowed, uri, authority, text: url.into() })
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the connection is to be secured.
    pub const fn is_https(&self) -> bool {
        self.https
    }

    /// The host, as the URL names it.
    pub const fn host(&self) -> &Host<String> {
        &self.host
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The request target: path and query.
    pub(crate) const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The value of the `host` header.
    pub(crate) const fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// Whether a connection to `self` serves `other` too.
    pub(crate) fn is_same_origin(&self, other: &Self) -> bool {
        self.https == other.https && self.port == other.port && self.host == other.host
    }

    /// Whether `address`, an address of this host, may be dialled.
    ///
    /// # Errors
    /// With what the address is.
    pub fn may_dial(&self, address: IpAddr, policy: &Policy) -> Result<(), Class> {
        if policy.denies(address) {
            return Err(Class::Denied);
        }
        if policy.allows(address) {
            return Ok(());
        }
        let class = classify(address);
        if class == Class::Global && !self.only_allowed { Ok(()) } else { Err(class) }
    }
}

/// What a host is, as far as its text shows.
enum Place {
    /// The operator lets exactly this one through.
    Allowed,
    /// By its form the name of a public host.
    Public,
    /// Acceptable only if it resolves to what the operator lets through.
    Internal,
}

fn check_text(text: &str) -> Result<(), UrlRefusal> {
    if text.chars().count() > MAX_URL {
        return Err(UrlRefusal::form("the URL is longer than 255 characters"));
    }
    // The WHATWG rules drop or turn these silently; a URL with one is a mistake
    // or an attempt to make two parsers disagree.
    if text.contains(|letter: char| letter.is_control() || letter.is_whitespace() || letter == '\\')
    {
        return Err(UrlRefusal::form(
            "the URL contains a control character, a space or a backslash",
        ));
    }
    Ok(())
}

/// Whether the text has an `@` before its path: `https://@host` parses without a
/// user name.
fn text_has_user(text: &str) -> bool {
    text.split_once("://")
        .and_then(|(_scheme, rest)| rest.split(['/', '?', '#']).next())
        .is_some_and(|authority| authority.contains('@'))
}

fn check_host(host: &Host<String>, policy: &Policy) -> Result<Place, UrlRefusal> {
    let literal = match host {
        Host::Ipv4(v4) => IpAddr::V4(*v4),
        Host::Ipv6(v6) => IpAddr::V6(*v6),
        Host::Domain(name) => return check_name(name),
    };
    if policy.allows(literal) {
        return Ok(Place::Allowed);
    }
    Err(UrlRefusal::place(match classify(literal) {
        Class::Global => "the URL must name a host, not an address",
        Class::Unspecified
        | Class::Loopback
        | Class::Private
        | Class::SharedNat
        | Class::LinkLocal
        | Class::CloudMetadata
        | Class::Special
        | Class::Documentation
        | Class::Multicast
        | Class::Reserved
        | Class::Embedded
        | Class::Denied => "this address is not a public one",
    }))
}

fn check_name(name: &str) -> Result<Place, UrlRefusal> {
    if name.ends_with('.') {
        return Err(UrlRefusal::form("the host name must not end in a dot"));
    }
    if name.len() > MAX_NAME || name.split('.').any(|label| label.len() > MAX_LABEL) {
        return Err(UrlRefusal::form("the host name is too long"));
    }
    let bad_label =
        |label: &str| label.is_empty() || label.starts_with('-') || label.ends_with('-');
    let is_name = |letter: u8| letter.is_ascii_alphanumeric() || b"-_.".contains(&letter);
    if !name.bytes().all(is_name) || name.split('.').any(bad_label) {
        return Err(UrlRefusal::form("the host name is not a valid one"));
    }
    let internal = !name.contains('.')
        || INTERNAL_SUFFIXES.iter().any(|suffix| {
            name.strip_suffix(suffix).is_some_and(|head| head.is_empty() || head.ends_with('.'))
        });
    Ok(if internal { Place::Internal } else { Place::Public })
}

#[cfg(test)]
mod tests;
