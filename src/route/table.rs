//! Which of a listener's routes a call takes: the first that fits.

use crate::config::Match;

/// A listener's routes in their order, by what each is for.
#[derive(Debug, Default)]
pub struct Table(Vec<Match>);

/// The routes that calls to one method may take. The path is looked at once where it repeats, and
/// the rest of a call only where it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidates {
    /// This one, or none, whatever the call says.
    Settled(Option<u16>),
    /// The first of these that fits.
    Open(Box<[u16]>),
}

impl Table {
    /// Of routes in their order. Whatever fits none of them takes the one behind the last, which is
    /// to be among them where there is such a one.
    pub fn new<'a>(routes: impl Iterator<Item = &'a Match>) -> Self {
        Self(routes.cloned().collect())
    }

    /// What a method's path leaves open.
    pub fn candidates(&self, path: &[u8]) -> Candidates {
        let mut open = Vec::new();
        for (route, matches) in (0..).zip(&self.0) {
            if !is_path_of(matches, path) {
                continue;
            }
            if matches.authority.is_none() && matches.metadata.is_empty() {
                if open.is_empty() {
                    return Candidates::Settled(Some(route));
                }
                open.push(route);
                break;
            }
            open.push(route);
        }
        match open.is_empty() {
            true => Candidates::Settled(None),
            false => Candidates::Open(open.into()),
        }
    }

    /// The route of a call with these candidates. `value` gives the one value of a name, none where
    /// it is not there or there more than once.
    pub fn choose(
        &self,
        candidates: &Candidates,
        value: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Option<u16> {
        let open = match candidates {
            Candidates::Settled(route) => return *route,
            Candidates::Open(open) => open,
        };
        open.iter().copied().find(|route| {
            let Match { authority, metadata, .. } = &self.0[usize::from(*route)];
            let host = || value(":authority").or_else(|| value("host"));
            authority.as_ref().is_none_or(|wanted| host().is_some_and(|is| is_host(&is, wanted)))
                && metadata
                    .iter()
                    .all(|(name, wanted)| value(name).is_some_and(|is| is == wanted.as_bytes()))
        })
    }
}

fn is_path_of(matches: &Match, path: &[u8]) -> bool {
    let service = |service: &String| {
        let rest = path.strip_prefix(b"/").and_then(|path| path.strip_prefix(service.as_bytes()));
        rest.is_some_and(|rest| rest.starts_with(b"/"))
    };
    matches.service.as_ref().is_none_or(service)
        && matches.prefix.as_ref().is_none_or(|prefix| path.starts_with(prefix.as_bytes()))
}

/// Whether an authority is the wanted one, which is in lower case; its port counts only where one
/// is wanted.
fn is_host(authority: &[u8], wanted: &str) -> bool {
    let (head, tail) = authority.split_at(wanted.len().min(authority.len()));
    let port = |tail: &[u8]| {
        tail.strip_prefix(b":").is_some_and(|port| port.iter().all(u8::is_ascii_digit))
    };
    head.eq_ignore_ascii_case(wanted.as_bytes()) && (tail.is_empty() || port(tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[Match]) -> Table {
        Table::new(routes.iter())
    }

    fn service(name: &str) -> Match {
        Match { service: Some(name.to_owned()), ..Match::default() }
    }

    fn of_tenant(tenant: &str) -> Match {
        let metadata = [("x-scope-orgid".to_owned(), tenant.to_owned())];
        Match { metadata: metadata.into(), ..Match::default() }
    }

    fn of_authority(authority: &str) -> Match {
        Match { authority: Some(authority.to_owned()), ..Match::default() }
    }

    fn none(_: &str) -> Option<Vec<u8>> {
        None
    }

    #[test]
    fn a_service_is_a_whole_name_and_a_prefix_is_not() {
        let prefix = Match { prefix: Some("/tempopb.Quer".to_owned()), ..Match::default() };
        let table = table(&[service("tempopb.Pusher"), prefix]);
        for (path, route) in [
            ("/tempopb.Pusher/PushBytesV2", Some(0)),
            ("/tempopb.PusherX/Push", None),
            ("/tempopb.Querier/FindTraceByID", Some(1)),
            ("/tempopb.Pushe/r", None),
        ] {
            let candidates = table.candidates(path.as_bytes());
            assert_eq!(candidates, Candidates::Settled(route), "{path}");
            assert_eq!(table.choose(&candidates, none), route);
        }
    }

    #[test]
    fn the_first_route_that_fits_is_taken() {
        let routes = [of_tenant("a"), service("s.T"), of_tenant("b"), Match::default()];
        let table = table(&routes);
        let candidates = table.candidates(b"/s.T/M");
        assert_eq!(candidates, Candidates::Open([0, 1].into()));
        let tenant = |tenant: &str| {
            let tenant = tenant.as_bytes().to_vec();
            move |name: &str| (name == "x-scope-orgid").then(|| tenant.clone())
        };
        assert_eq!(table.choose(&candidates, tenant("a")), Some(0));
        assert_eq!(table.choose(&candidates, tenant("b")), Some(1));
        let other = table.candidates(b"/s.U/M");
        assert_eq!(table.choose(&other, tenant("b")), Some(2));
        assert_eq!(table.choose(&other, none), Some(3));
    }

    #[test]
    fn an_authority_fits_whatever_its_case_and_port() {
        for (wanted, is, fits) in [
            ("tempo.example", "tempo.example", true),
            ("tempo.example", "Tempo.Example:4317", true),
            ("tempo.example", "tempo.example.org", false),
            ("tempo.example", "tempo", false),
            ("tempo.example:1", "tempo.example:1", true),
            ("tempo.example:1", "tempo.example", false),
            ("tempo.example:1", "tempo.example:12", false),
            ("[::1]", "[::1]:4317", true),
        ] {
            let table = table(&[of_authority(wanted)]);
            let candidates = table.candidates(b"/s.T/M");
            for name in [":authority", "host"] {
                let value = |asked: &str| (asked == name).then(|| is.as_bytes().to_vec());
                assert_eq!(table.choose(&candidates, value).is_some(), fits, "{wanted} {is}");
            }
        }
    }

    #[test]
    fn all_that_a_route_says_must_fit() {
        let both = Match { metadata: of_tenant("a").metadata, ..of_authority("h") };
        let table = table(&[both]);
        let candidates = table.candidates(b"/s.T/M");
        let tenant = |name: &str| (name == "x-scope-orgid").then(|| b"a".to_vec());
        assert_eq!(table.choose(&candidates, tenant), None);
        let all = |name: &str| match name {
            ":authority" => Some(b"h".to_vec()),
            name => tenant(name),
        };
        assert_eq!(table.choose(&candidates, all), Some(0));
    }
}
