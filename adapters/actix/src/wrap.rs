//! The wrap: a route's rules, and whose keys they are.

use std::any::type_name;
use std::future::{Ready as ReadyFuture, ready};
use std::rc::Rc;
use std::sync::Arc;

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform};
use payonce_engine::Engine;
use payonce_http::{Ending, IntoOwner, Refusal, Reply, Route};

use crate::middleware::{IdempotentMiddleware, OwnerOf, Rules};

/// A wrap that still needs its operation, as in the example of [`Idempotent`].
#[derive(Clone, Debug)]
pub struct Unnamed(());

/// A wrap that still needs its owner, as in the example of [`Idempotent`].
#[derive(Clone, Debug)]
pub struct Unowned(());

/// A wrap that is complete, as in the example of [`Idempotent`].
#[derive(Clone)]
pub struct Ready(OwnerOf);

/// Makes the handlers of a route idempotent. It is a middleware once it has an operation and an owner:
///
/// ```
/// use actix_web::{App, HttpMessage, HttpResponse, web};
/// use payonce_actix::Idempotent;
/// # fn app(engine: &payonce_actix::payonce_engine::Engine) {
/// # async fn create_order() -> HttpResponse { HttpResponse::Created().finish() }
/// # #[derive(Clone)] struct Customer { id: String }
/// App::new().service(
///     web::resource("/orders").post(create_order).wrap(
///         Idempotent::new(engine)
///             .operation("create_order")
///             .owner(|request| request.extensions().get::<Customer>().map(|customer| customer.id.clone())),
///     ),
/// );
/// # }
/// ```
///
/// Without an owner it is not a middleware, because a default would mix the keys of all customers:
///
/// ```compile_fail
/// use actix_web::{App, HttpResponse, web};
/// use payonce_actix::Idempotent;
/// # fn app(engine: &payonce_actix::payonce_engine::Engine) {
/// # async fn create_order() -> HttpResponse { HttpResponse::Created().finish() }
/// App::new().service(
///     web::resource("/orders").post(create_order).wrap(Idempotent::new(engine).operation("create_order")),
/// );
/// # }
/// ```
///
/// One wrap inside another is an error, because the inner one would commit what the outer one could not undo. Two around the same
/// resource, scope or app panic when a worker builds the app, so that the server does not start. actix-web does not say what is
/// inside of a scope: one around a scope and one around its resource are seen at the first request, and each is refused by
/// [`Refusal::Nested`].
///
/// Every rule can be set:
///
/// ```
/// # fn rules(engine: &payonce_actix::payonce_engine::Engine) {
/// use std::time::Duration;
///
/// use payonce_actix::{Ending, Idempotent, Refusal, Reply};
///
/// let rules = Idempotent::new(engine)
///     .operation("create_order")
///     .owner(|request| request.headers().get("x-shop").and_then(|shop| shop.to_str().ok()).map(str::to_owned))
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
pub struct Idempotent<S = Ready> {
    route: Route,
    state: S,
}

impl Idempotent<Unnamed> {
    /// Creates a wrap for the engine that decides which request executes. It needs an operation next.
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
    /// # fn layers(engine: &payonce_actix::payonce_engine::Engine) {
    /// use payonce_actix::Idempotent;
    ///
    /// // A client may use one key for both.
    /// let create = Idempotent::new(engine).operation("create_order");
    /// let cancel = Idempotent::new(engine).operation("cancel_order");
    /// # drop((create, cancel));
    /// # }
    /// ```
    pub fn operation(mut self, name: impl Into<String>) -> Idempotent<Unowned> {
        self.route.operation = name.into();
        Idempotent {
            route: self.route,
            state: Unowned(()),
        }
    }
}

impl Idempotent<Unowned> {
    /// Sets the function of the request that names the key's owner: the account, customer or tenant that was authenticated, never a name
    /// that a client can choose. A request for which it returns `None` is answered with 401.
    ///
    /// An outer middleware can put the owner into the request's extensions, as in the example of [`Idempotent`]. A service with one owner
    /// names it:
    ///
    /// ```
    /// # fn layer(engine: &payonce_actix::payonce_engine::Engine) {
    /// let layer = payonce_actix::Idempotent::new(engine).operation("create_order").owner(|_| "the shop");
    /// # drop(layer);
    /// # }
    /// ```
    pub fn owner<O: IntoOwner>(
        self,
        owner: impl Fn(&ServiceRequest) -> O + Send + Sync + 'static,
    ) -> Idempotent {
        Idempotent {
            route: self.route,
            state: Ready(Arc::new(move |request| owner(request).into_owner())),
        }
    }
}

impl Idempotent {
    payonce_http::rules!();
}

/// Whether a service of this type has one of ours in it. The types of the middlewares that are wrapped around one resource, scope or app
/// are a part of its own; those of a scope's resources are not.
fn is_wrapped<S>() -> bool {
    // Without the parameter's name, which is the last.
    let ours = type_name::<IdempotentMiddleware<()>>();
    let ours = ours.strip_suffix("()>").unwrap_or(ours);
    type_name::<S>().contains(ours)
}

impl<S, B> Transform<S, ServiceRequest> for Idempotent
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error> + 'static,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse;
    type Error = Error;
    type Transform = IdempotentMiddleware<S>;
    type InitError = ();
    type Future = ReadyFuture<Result<Self::Transform, ()>>;

    /// # Panics
    ///
    /// If `inner` is wrapped in such a middleware already: see [`Idempotent`].
    fn new_transform(&self, inner: S) -> Self::Future {
        let Ready(owner) = &self.state;
        if is_wrapped::<S>() {
            panic!("{}", payonce_http::nested(&self.route.operation));
        }
        let rules = Rules {
            route: self.route.clone(),
            owner: Arc::clone(owner),
        };
        ready(Ok(IdempotentMiddleware::new(
            Rc::new(inner),
            Rc::new(rules),
        )))
    }
}
