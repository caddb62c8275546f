//! The names in certificates that clients are known by.

/// A subject alternative name of a client's certificate (RFC 5280, 4.2.1.6), or how one begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum San {
    /// A DNS name. One with a `*` in a certificate is never meant.
    Dns(String),
    /// A whole URI.
    Uri(String),
    /// What a URI begins with, up to a `/`.
    Below(String),
}

impl San {
    /// What `text` says; why it says nothing.
    pub(in crate::config) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || !text.is_ascii() || text.bytes().any(|byte| !byte.is_ascii_graphic())
        {
            return Err("a san is a URI, such as spiffe://prod/ns/a/sa/agent, or a DNS name");
        }
        let Some((scheme, rest)) = text.split_once(':') else { return dns(text) };
        let (whole, open) = match rest.strip_suffix('*') {
            Some(start) => (start, true),
            None => (rest, false),
        };
        if scheme.is_empty() || whole.is_empty() || whole.contains('*') {
            return Err("a URI has a scheme, and no * but the last character");
        }
        if !open {
            return Ok(Self::Uri(text.to_owned()));
        }
        // Without a whole authority it would be anybody's.
        let path = whole.strip_prefix("//").and_then(|rest| rest.split_once('/'));
        match path {
            Some((authority, _)) if !authority.is_empty() && whole.ends_with('/') => {
                Ok(Self::Below(text[..text.len() - 1].to_owned()))
            }
            _ => Err("a * stands behind a / of the path, as in spiffe://prod/ns/a/*"),
        }
    }

    /// Whether a certificate's DNS name is it.
    pub fn is_dns(&self, name: &str) -> bool {
        matches!(self, Self::Dns(own) if own.eq_ignore_ascii_case(name))
    }

    /// Whether a certificate's URI is it, or begins so.
    pub fn is_uri(&self, uri: &str) -> bool {
        match self {
            Self::Dns(_) => false,
            Self::Uri(own) => own == uri,
            Self::Below(start) => uri.strip_prefix(&**start).is_some_and(is_plain),
        }
    }
}

/// Whether a path is what it seems to be, as SPIFFE's are (SPIFFE-ID, 2.2): no segment is empty or
/// stands for another one, and nothing is escaped.
fn is_plain(path: &str) -> bool {
    let lawful = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:@!$&'()+,;=".contains(&byte);
    path.split('/').all(|it| !matches!(it, "" | "." | "..") && it.bytes().all(lawful))
}

fn dns(name: &str) -> Result<San, &'static str> {
    let lawful = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match name.split('.').all(|label| !label.is_empty() && label.bytes().all(lawful)) {
        true => Ok(San::Dns(name.to_owned())),
        false => Err("a DNS name is letters, digits, - and dots; a * is for URIs alone"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_a_whole_and_uris_up_to_a_slash() {
        for (san, uri, fits) in [
            ("spiffe://a/b", "spiffe://a/b", true),
            ("spiffe://a/b", "spiffe://a/B", false),
            ("spiffe://a/b", "spiffe://a/b/c", false),
            ("spiffe://a/b/*", "spiffe://a/b/c", true),
            ("spiffe://a/b/*", "spiffe://a/b/", false),
            ("spiffe://a/b/*", "spiffe://a/bc", false),
            ("spiffe://a/b/*", "spiffe://a/b/c/d-1_x.y", true),
            ("spiffe://a/b/*", "spiffe://a/b/../c", false),
            ("spiffe://a/b/*", "spiffe://a/b/c/..", false),
            ("spiffe://a/b/*", "spiffe://a/b//c", false),
            ("spiffe://a/b/*", "spiffe://a/b/c/", false),
            ("spiffe://a/b/*", "spiffe://a/b/%2e%2e", false),
            ("spiffe://a/b/*", "spiffe://a/b/c?d", false),
            ("spiffe://a/b/*", "spiffe://a/b/c\0", false),
            ("spiffe://a/*", "spiffe://a.evil/b", false),
            ("urn:a:b", "urn:a:b", true),
            ("a.test", "a.test", false),
        ] {
            assert_eq!(San::parse(san).unwrap().is_uri(uri), fits, "{san} {uri}");
        }
        let san = San::parse("A.test").unwrap();
        assert!(san.is_dns("a.TEST") && !san.is_dns("b.a.test") && !san.is_dns("*.test"));
        assert!(!San::parse("urn:a").unwrap().is_dns("urn:a"));
    }

    #[test]
    fn what_would_fit_anybody_is_refused() {
        for text in [
            "",
            "*",
            "*.test",
            "a..b",
            "a b",
            "spiffe://*",
            "spiffe:///*",
            "spiffe://a*",
            "spiffe://a/b*",
            "spiffe://a/*/b",
            "urn:*",
            ":a",
            "a:",
            "spiffe://a/\u{e9}",
        ] {
            assert!(San::parse(text).is_err(), "{text:?}");
        }
    }
}
