//! What the builders of all adapters have in common.

/// The setters of a route's rules, for a builder with a field `route` of [`Route`](crate::Route).
#[doc(hidden)]
#[macro_export]
macro_rules! rules {
    () => {
        /// How long a key of this route is remembered, from its first use. The engine's
        /// [`IdempotencyConfig::ttl`](payonce_engine::IdempotencyConfig::ttl) where it is not set.
        #[must_use]
        pub fn ttl(mut self, ttl: std::time::Duration) -> Self {
            self.route.ttl = Some(ttl);
            self
        }

        /// How long a duplicate waits for the first request before it is answered by 409, at most as long as the engine is
        /// configured. Where the first request is at work in another process, it is the session's `lock_timeout` of 3 s.
        #[must_use]
        pub fn wait(mut self, at_most: std::time::Duration) -> Self {
            self.route.wait = payonce_engine::Wait::AtMost(at_most);
            self
        }

        /// Takes requests without a key, too. Each of them is executed, in a transaction that is committed where its answer would
        /// have been stored with its writes.
        #[must_use]
        pub fn key_optional(mut self) -> Self {
            self.route.requires_key = false;
            self
        }

        /// Stores and sends only these headers of an answer. All but those of the message itself where it is not set.
        #[must_use]
        pub fn keep_headers<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
            let names = names.into_iter().map(str::to_ascii_lowercase);
            self.route.kept_headers = Some(names.collect());
            self
        }

        /// Makes a header of the request a part of what is signed: another value under the same key is another request. No header
        /// is signed where it is not set.
        #[must_use]
        pub fn sign_header(mut self, name: &str) -> Self {
            self.route.signed_headers.push(name.to_ascii_lowercase());
            self
        }

        /// Leaves a field of a JSON body out of what is signed, because a client sends it anew each time: `sent_at`,
        /// `meta.sent_at`, or `items[].sent_at` for those of all items.
        #[must_use]
        pub fn unsigned_field(mut self, path: impl Into<String>) -> Self {
            self.route.unsigned_fields.push(path.into());
            self
        }

        /// Maximum size of a request's body, in bytes; 2 MiB where it is not set. It is held in memory while it is signed and
        /// handled.
        #[must_use]
        pub fn max_body(mut self, bytes: usize) -> Self {
            self.route.max_body = bytes;
            self
        }

        /// Maximum size of an answer's body, in bytes; 1 MiB where it is not set. It is stored with the key.
        #[must_use]
        pub fn max_answer(mut self, bytes: usize) -> Self {
            self.route.max_answer = bytes;
            self
        }

        /// How long the handler may take, its answer's body included; 10 s where it is not set. Its transaction is open for as
        /// long, and PostgreSQL ends one that stands still for 10 s.
        #[must_use]
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.route.timeout = timeout;
            self
        }

        /// How long a request's body may take to arrive; 30 s where it is not set.
        #[must_use]
        pub fn body_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.route.body_timeout = timeout;
            self
        }

        /// What becomes of an answer, by its status. [`Ending::of_status`] where it is not set.
        #[must_use]
        pub fn ending(mut self, rule: impl Fn(u16) -> Ending + Send + Sync + 'static) -> Self {
            self.route.ending = std::sync::Arc::new(rule);
            self
        }

        /// This service's own form of refusals. Those for which it returns `None` are sent as [`Refusal::problem`].
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
