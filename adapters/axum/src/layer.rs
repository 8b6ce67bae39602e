//! The layer: a route's rules, and whose keys they are.

use std::sync::Arc;

use axum::http::request::Parts;
use payonce_engine::Engine;
use payonce_http::{Ending, IntoOwner, Refusal, Reply, Route};
use tower_layer::Layer;

use crate::nesting;
use crate::service::{Idempotent, OwnerOf};

/// A layer that still needs its operation, as in the example of [`IdempotentLayer`].
#[derive(Clone, Debug)]
pub struct Unnamed(());

/// A layer that still needs its owner, as in the example of [`IdempotentLayer`].
#[derive(Clone, Debug)]
pub struct Unowned(());

/// A layer that is complete, as in the example of [`IdempotentLayer`].
#[derive(Clone)]
pub struct Ready(OwnerOf);

/// Makes the handlers of a route idempotent. It is a layer once it has an operation and an owner:
///
/// ```
/// use payonce_axum::IdempotentLayer;
/// # use axum::{Router, routing::post};
/// # fn routes(engine: &payonce_axum::payonce_engine::Engine) -> Router {
/// # async fn create_order() {}
/// let idempotent = IdempotentLayer::new(engine)
///     .operation("create_order")
///     .owner(|request| request.extensions.get::<Customer>().map(|customer| customer.id.clone()));
/// // Around the handler. Around the router, its 404 for other paths would be idempotent, too.
/// Router::new().route("/orders", post(create_order).layer(idempotent))
/// # }
/// # #[derive(Clone)] struct Customer { id: String }
/// ```
///
/// Without an owner it is not a layer, because a default would mix the keys of all customers:
///
/// ```compile_fail
/// # use axum::{Router, routing::post};
/// # fn routes(engine: &payonce_axum::payonce_engine::Engine) -> Router {
/// # async fn create_order() {}
/// # use payonce_axum::IdempotentLayer;
/// Router::new()
///     .route("/orders", post(create_order))
///     .layer(IdempotentLayer::new(engine).operation("create_order"))
/// # }
/// ```
///
/// One layer inside another is an error, because the inner one would commit what the outer one could not undo. It panics as soon as
/// axum puts the outer one around the inner one's service: in [`Router::layer`](axum::Router::layer) and
/// [`MethodRouter::layer`](axum::routing::MethodRouter::layer); of what is put by `route_layer` around a handler, when that gets its
/// state, in [`Router::with_state`](axum::Router::with_state) or [`Router::into_make_service`](axum::Router::into_make_service). Where
/// axum hides the inner one, as in a router that is nested as a service, each request is refused by [`Refusal::Nested`].
///
/// Every rule can be set:
///
/// ```
/// # fn rules(engine: &payonce_axum::payonce_engine::Engine) {
/// use std::time::Duration;
///
/// use payonce_axum::{Ending, IdempotentLayer, Refusal, Reply};
///
/// let rules = IdempotentLayer::new(engine)
///     .operation("create_order")
///     .owner(|request| request.headers.get("x-shop").and_then(|shop| shop.to_str().ok()).map(str::to_owned))
///     .ttl(Duration::from_secs(7 * 24 * 3600))
///     .wait(Duration::from_secs(2))
///     .key_optional()
///     .keep_headers(["location", "content-type"])
///     .sign_header("x-currency")
///     .unsigned_field("items[].sent_at")
///     .max_body(64 * 1024)
///     .max_answer(16 * 1024)
///     .timeout(Duration::from_secs(5))
///     .body_timeout(Duration::from_secs(10))
///     // A conflict may be another one the next time.
///     .ending(|status| if status == 409 { Ending::Forget } else { Ending::of_status(status) })
///     .refusals(|refusal| {
///         matches!(refusal, Refusal::KeyMissing)
///             .then(|| Reply { status: 400, headers: Vec::new(), body: "send a key".into() })
///     });
/// # drop(rules);
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct IdempotentLayer<S = Ready> {
    route: Route,
    state: S,
}

impl IdempotentLayer<Unnamed> {
    /// Creates a layer for the engine that decides which request executes. It needs an operation next.
    pub fn new(engine: &Engine) -> Self {
        Self {
            route: Route::new(engine, String::new()),
            state: Unnamed(()),
        }
    }

    /// Names what the route does, e.g. `create_order`. The name has 1–255 bytes, and the service chooses it. It is part of each key's
    /// scope: the same key under another operation is another key. Do not change it while its keys are remembered.
    ///
    /// ```
    /// # fn layers(engine: &payonce_axum::payonce_engine::Engine) {
    /// use payonce_axum::IdempotentLayer;
    ///
    /// // A client may use one key for both.
    /// let create = IdempotentLayer::new(engine).operation("create_order");
    /// let cancel = IdempotentLayer::new(engine).operation("cancel_order");
    /// # drop((create, cancel));
    /// # }
    /// ```
    pub fn operation(mut self, name: impl Into<String>) -> IdempotentLayer<Unowned> {
        self.route.operation = name.into();
        IdempotentLayer {
            route: self.route,
            state: Unowned(()),
        }
    }
}

impl IdempotentLayer<Unowned> {
    /// Sets the function of the request that names the key's owner: the account, customer or tenant that was authenticated, never a name
    /// that a client can choose. A request for which it returns `None` is answered with 401.
    ///
    /// An outer layer can put the owner into the request's extensions, as in the example of [`IdempotentLayer`]. A service with one owner
    /// names it:
    ///
    /// ```
    /// # fn layer(engine: &payonce_axum::payonce_engine::Engine) {
    /// let layer = payonce_axum::IdempotentLayer::new(engine).operation("create_order").owner(|_| "the shop");
    /// # drop(layer);
    /// # }
    /// ```
    pub fn owner<O: IntoOwner>(
        self,
        owner: impl Fn(&Parts) -> O + Send + Sync + 'static,
    ) -> IdempotentLayer {
        IdempotentLayer {
            route: self.route,
            state: Ready(Arc::new(move |request| owner(request).into_owner())),
        }
    }
}

impl IdempotentLayer {
    payonce_http::rules!();
}

impl<S: Clone> Layer<S> for IdempotentLayer {
    type Service = Idempotent<S>;

    /// # Panics
    ///
    /// If `inner` has such a layer already: see [`IdempotentLayer`].
    fn layer(&self, inner: S) -> Self::Service {
        let Ready(owner) = &self.state;
        if nesting::has_layer(&inner) {
            panic!("{}", payonce_http::nested(&self.route.operation));
        }
        Idempotent::new(inner, self.route.clone(), Arc::clone(owner))
    }
}
