//! Pages of the web that ask a service of this machine, told from programs by what a browser sends along.
//!
//! A service that wants no token listens on this machine alone, and whoever has an account there may use it.
//! A browser there carries out what any page says. It cannot be made to hide two things: the `Origin` of the
//! page with whatever changes something, and as `Host` the name that the page was loaded from, also where
//! that name was turned to an address of this machine since (DNS rebinding). Programs send no origin, and as
//! host an address, `localhost` or another name without a dot, which no page can be loaded from elsewhere.

use std::net::IpAddr;

/// What of a request shows that a page of the web asks, in words; nothing where none does.
#[must_use]
pub fn stranger(host: Option<&str>, origin: Option<&str>) -> Option<String> {
    let host = host.unwrap_or_default();
    if !is_of_this_machine(host) {
        return Some(format!("`{host}` as host"));
    }
    let is_other = |origin: &&str| origin.strip_prefix("http://") != Some(host);
    origin.filter(is_other).map(|origin| format!("a page of `{origin}`"))
}

/// Whether a host with or without a port is an address, or a name that is none of the web.
fn is_of_this_machine(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok());
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    !name.contains('.') || name.parse::<IpAddr>().is_ok() || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_pages_of_the_service_itself_are_no_strangers() {
        for (host, origin) in [
            (None, None),
            (Some("127.0.0.1:7070"), None),
            (Some("[::1]:7070"), None),
            (Some("localhost:7070"), Some("http://localhost:7070")),
            (Some("127.0.0.1:7070"), Some("http://127.0.0.1:7070")),
            (Some("metad"), None),
            (Some("foresail.localhost:7070"), None),
        ] {
            assert_eq!(stranger(host, origin), None, "{host:?} {origin:?}");
        }
    }

    #[test]
    fn pages_from_elsewhere_are_strangers_whatever_their_name_was_turned_to() {
        for (host, origin) in [
            ("127.0.0.1:7070", Some("https://example.org")),
            ("127.0.0.1:7070", Some("null")),
            ("127.0.0.1:7070", Some("http://127.0.0.1:8080")),
            ("localhost:7070", Some("https://localhost:7070")),
            ("rebound.example.org:7070", Some("http://rebound.example.org:7070")),
            ("rebound.example.org:7070", None),
            ("127.0.0.1.example.org", None),
            ("[example.org]:7070", None),
        ] {
            assert!(stranger(Some(host), origin).is_some(), "{host} {origin:?}");
        }
    }
}
