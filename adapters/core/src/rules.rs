//! What the builders of all adapters have in common.

/// The setters of a route's rules, for a builder with a field `route` of [`Route`](crate::Route).
#[doc(hidden)]
#[macro_export]
macro_rules! rules {
    () => {
        /// How long a key of this route is remembered, from its first use. The default is the engine's
        /// [`IdempotencyConfig::ttl`](payonce_engine::IdempotencyConfig::ttl).
        #[must_use]
        pub fn ttl(mut self, ttl: std::time::Duration) -> Self {
            self.route.ttl = Some(ttl);
            self
        }

        /// How long a duplicate waits for the first request before it is answered with 409. It is at most the engine's
        /// [`IdempotencyConfig::patience`](payonce_engine::IdempotencyConfig::patience). If the first request is in progress in another
        /// process, the duplicate waits for its row, for the session's `lock_timeout` of 3 s.
        #[must_use]
        pub fn wait(mut self, at_most: std::time::Duration) -> Self {
            self.route.wait = payonce_engine::Wait::AtMost(at_most);
            self
        }

        /// Also accepts requests without a key. Each of them is executed, in a transaction that is committed if its status is one with
        /// which the writes of a request with a key would be kept.
        #[must_use]
        pub fn key_optional(mut self) -> Self {
            self.route.requires_key = false;
            self
        }

        /// Stores and sends only these headers of an answer. By default all are stored but those of the message itself, such as
        /// `Content-Length`.
        #[must_use]
        pub fn keep_headers<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
            let names = names.into_iter().map(str::to_ascii_lowercase);
            self.route.kept_headers = Some(names.collect());
            self
        }

        /// Signs a header of the request: another value under the same key is another request. By default no header is signed.
        #[must_use]
        pub fn sign_header(mut self, name: &str) -> Self {
            self.route.signed_headers.push(name.to_ascii_lowercase());
            self
        }

        /// Does not sign a field of a JSON body, because clients send another value with each attempt: `sent_at`, `meta.sent_at`, or
        /// `items[].sent_at` for a field of all items.
        #[must_use]
        pub fn unsigned_field(mut self, path: impl Into<String>) -> Self {
            self.route.unsigned_fields.push(path.into());
            self
        }

        /// Maximum size of a request's body in bytes. The default is 2 MiB. The body is held in memory while it is signed and handled.
        #[must_use]
        pub fn max_body(mut self, bytes: usize) -> Self {
            self.route.max_body = bytes;
            self
        }

        /// Maximum size of an answer's body in bytes. The default is 1 MiB. The body is stored with the key.
        #[must_use]
        pub fn max_answer(mut self, bytes: usize) -> Self {
            self.route.max_answer = bytes;
            self
        }

        /// How long the handler may take, including the body of its answer. The default is 10 s. The handler's transaction is open for
        /// as long, and PostgreSQL ends a transaction that is idle for 10 s.
        #[must_use]
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.route.timeout = timeout;
            self
        }

        /// How long a request's body may take to arrive. The default is 30 s.
        #[must_use]
        pub fn body_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.route.body_timeout = timeout;
            self
        }

        /// Says by the status of an answer whether the answer and the handler's writes are kept. The default is [`Ending::of_status`].
        #[must_use]
        pub fn ending(mut self, rule: impl Fn(u16) -> Ending + Send + Sync + 'static) -> Self {
            self.route.ending = std::sync::Arc::new(rule);
            self
        }

        /// Sets the form of this route's refusals. Refusals for which `form` returns `None` are sent as [`Refusal::problem`].
        #[must_use]
        pub fn refusals(
            mut self,
            form: impl Fn(&Refusal) -> Option<Reply> + Send + Sync + 'static,
        ) -> Self {
            self.route.refusals = Some(std::sync::Arc::new(form));
            self
        }
    };
}
