//! The rules of the administrative server.

use super::{
    super::{
        checked::{Admin, Kept},
        credentials::Tokens,
        document,
    },
    Checker, within,
};

impl Checker<'_> {
    pub(super) fn admin(&mut self, raw: document::Admin) -> Admin {
        let document::Admin { address, tls, tokens, token_file } = raw;
        let plain = tls.as_ref().is_some_and(|tls| tls.plain);
        let tls = tls.map(|raw| document::ListenerTls { plain: false, ..raw });
        let tls = tls.map(|raw| self.listener_tls("admin.tls".to_owned(), raw));
        if plain {
            self.problem("admin.tls.plain", "cannot be true: what proves who asks stays secret");
        }
        if token_file.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
            self.problem("admin.token_file", "must name a file: without one nobody has a token");
        }
        let proves = !tokens.is_empty() || token_file.is_some();
        let mut known = Tokens::default();
        for (index, token) in tokens.iter().enumerate() {
            self.added(&format!("admin.tokens[{index}]"), known.add(&token.0));
        }
        // What is wrong may have been meant to guard it.
        let guards = ["admin.tls", "admin.tokens", "admin.token_file"];
        let is_guard = |path: &str| guards.iter().any(|guard| within(path, guard));
        let wrong = self.problems.iter().any(|told| is_guard(&told.path));
        let clients = tls.as_ref().and_then(|tls| tls.clients.as_ref());
        let guarded = proves || clients.is_some_and(|clients| clients.required) || wrong;
        if !guarded && !address.ip().to_canonical().is_loopback() {
            let words = "can be reached from other machines, which must prove who they are: set \
                admin.token_file, admin.tokens, or admin.tls with a client_ca_file and client_auth: \
                required; or take";
            self.problem(
                "admin.address",
                format!("{address} {words} 127.0.0.1:{}", address.port()),
            );
        }
        let token_file =
            token_file.map(|path| self.file("admin.token_file".to_owned(), path, Kept::Tokens));
        Admin { address, tls, tokens: proves.then_some(known), token_file }
    }
}
