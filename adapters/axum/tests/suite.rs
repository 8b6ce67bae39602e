//! The shared suite, on axum: see `payonce_suite` for what each route does.

#![allow(clippy::expect_used, reason = "it is all tests")]

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::{HeaderName, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any_service, post};
use axum::{Json, Router};
use futures_util::{FutureExt, stream};
use payonce_axum::{IdempotentLayer, Key, Refusal, Reply, Tx};
use payonce_suite::{App, Framework, Running, insert_by_savepoint, insert_order};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

payonce_suite::suite!(Axum);

struct Axum;

impl Framework for Axum {
    async fn start(app: App) -> Running {
        let engine = app.engine.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(
            axum::serve(listener, routes(app))
                .with_graceful_shutdown(stopped.map(drop))
                .into_future(),
        );
        let stop = move || {
            async move {
                drop(stop);
                serving.await.expect("no panic").expect("served");
                engine.finish().await;
                engine.pool().close().await;
            }
            .boxed()
        };
        Running {
            address,
            stop: Box::new(stop),
        }
    }

    async fn start_nested(app: App) -> String {
        let between = middleware::from_fn_with_state(app.clone(), presence);
        let routes = || {
            let route = post(simple).layer::<_, Infallible>(layer(&app, "inner"));
            let route = route.layer::<_, Infallible>(between.clone());
            Router::<App>::new().route("/nested", route)
        };
        let put_around = AssertUnwindSafe(|| routes().layer(layer(&app, "outer")));
        let early = catch_unwind(put_around).expect_err("it is not built");
        // A handler without its state is no service yet.
        let late = routes_without_services(&app);
        let given_state =
            AssertUnwindSafe(|| late.with_state::<()>(app.clone()).into_make_service());
        let late = catch_unwind(given_state).expect_err("it does not start");
        assert_eq!(payonce_suite::said(&*early), payonce_suite::said(&*late));
        payonce_suite::said(&*early)
    }
}

fn routes_without_services(app: &App) -> Router<App> {
    let route = post(simple).route_layer(layer(app, "inner"));
    let route = route.route_layer(layer(app, "outer"));
    Router::new().route("/nested", route)
}

fn layer(app: &App, operation: &str) -> IdempotentLayer {
    IdempotentLayer::new(&app.engine)
        .operation(operation)
        .owner(|request| {
            let owner = request.headers.get("x-shop")?;
            owner.to_str().ok().map(str::to_owned)
        })
}

fn routes(app: App) -> Router {
    let plain = |operation: &str| layer(&app, operation);
    let orders = plain("orders")
        .unsigned_field("sent_at")
        .sign_header("X-Currency");
    let read = post(create_order).get(count_read).options(count_read);
    Router::new()
        .route("/orders", read.layer(orders))
        .nest(
            "/customers/{customer}",
            Router::new().route("/orders", post(order_of).layer(plain("customers"))),
        )
        .route("/answers/{status}", post(answer).layer(plain("answers")))
        .route("/panics", post(panics).layer(plain("panics")))
        .route(
            "/streams/{kibibytes}",
            post(streams).layer(plain("streams").max_answer(4096)),
        )
        .route(
            "/headers",
            post(headers).layer(plain("headers").keep_headers(["X-Kept"])),
        )
        .route("/odd-header", post(odd_header).layer(plain("odd-header")))
        .route(
            "/held",
            post(held).layer(plain("held").wait(Duration::ZERO)),
        )
        .route(
            "/large",
            post(large)
                .layer::<_, Infallible>(DefaultBodyLimit::disable())
                .layer(plain("large").max_body(11 * 1024 * 1024)),
        )
        .route(
            "/optional",
            post(optional).layer(plain("optional").key_optional()),
        )
        .route(
            "/brief",
            post(simple).layer(plain("brief").ttl(Duration::from_secs(3600))),
        )
        .route(
            "/own-form",
            post(simple).layer(plain("own-form").refusals(own_form)),
        )
        .route(
            "/swallows",
            post(swallows).layer(plain("swallows").key_optional()),
        )
        .route("/keeps", post(keeps).layer(plain("keeps")))
        .route("/bare", post(simple))
        .route("/twice", post(twice).layer(plain("twice")))
        .route(
            "/nested",
            any_service(
                Router::new()
                    .route("/nested", post(simple).layer(plain("inner")))
                    .with_state(app.clone()),
            )
            .layer(plain("outer")),
        )
        .route(
            "/second-connection",
            post(second_connection)
                .layer(plain("second-connection").timeout(Duration::from_millis(300))),
        )
        .route("/savepoint", post(savepoint).layer(plain("savepoint")))
        .layer(middleware::from_fn_with_state(app.clone(), presence))
        .with_state(app)
}

async fn presence(State(app): State<App>, request: Request, next: Next) -> Response {
    let _here = app.gates.presence();
    next.run(request).await
}

fn own_form(refusal: &Refusal) -> Option<Reply> {
    matches!(refusal, Refusal::KeyMissing).then(|| Reply {
        status: 418,
        headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
        body: Bytes::from(refusal.code()),
    })
}

/// A query that failed.
struct Failed;

impl From<sqlx::Error> for Failed {
    fn from(_: sqlx::Error) -> Self {
        Self
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

#[derive(Deserialize)]
struct NewOrder {
    sku: String,
    quantity: i32,
}

async fn create_order(
    mut tx: Tx,
    Json(order): Json<NewOrder>,
) -> Result<impl IntoResponse, Failed> {
    let id = insert_order(&mut tx, &order.sku, order.quantity).await?;
    let location = [(LOCATION, format!("/orders/{id}"))];
    Ok((StatusCode::CREATED, location, Json(json!({"id": id}))))
}

async fn count_read(State(app): State<App>) -> String {
    app.gates.count_read().to_string()
}

async fn order_of(
    Path(customer): Path<String>,
    mut tx: Tx,
    Key(key): Key,
    Json(order): Json<NewOrder>,
) -> Result<impl IntoResponse, Failed> {
    insert_order(&mut tx, &order.sku, order.quantity).await?;
    let body = json!({"customer": customer, "key": key.as_str(), "sku": order.sku});
    Ok((StatusCode::CREATED, Json(body)))
}

async fn answer(Path(status): Path<u16>, mut tx: Tx) -> Result<Response, Failed> {
    let id = insert_order(&mut tx, "tea", 1).await?;
    let status = StatusCode::from_u16(status).map_err(|_| Failed)?;
    Ok((status, [(LOCATION, "/elsewhere")], Json(json!({"id": id}))).into_response())
}

async fn panics(mut tx: Tx) -> Result<(), Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    panic!("as the test asks");
}

async fn streams(Path(kibibytes): Path<usize>, mut tx: Tx) -> Result<Body, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    let pieces = (0..kibibytes).map(|_| Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 1024])));
    Ok(Body::from_stream(stream::iter(pieces)))
}

async fn headers(mut tx: Tx) -> Result<impl IntoResponse, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    Ok([("x-kept", "1"), ("x-dropped", "1")])
}

async fn odd_header(mut tx: Tx) -> Result<HeaderMap, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    let value = HeaderValue::from_bytes(&[0xe9]).map_err(|_| Failed)?;
    Ok(HeaderMap::from_iter([(
        HeaderName::from_static("x-odd"),
        value,
    )]))
}

async fn held(State(app): State<App>, mut tx: Tx) -> Result<StatusCode, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    app.gates.pass().await;
    Ok(StatusCode::CREATED)
}

async fn large(mut tx: Tx, body: Bytes) -> Result<(StatusCode, String), Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    Ok((StatusCode::CREATED, body.len().to_string()))
}

async fn optional(key: Option<Key>, mut tx: Tx, body: String) -> Result<StatusCode, Failed> {
    insert_order(&mut tx, if key.is_some() { "keyed" } else { "keyless" }, 1).await?;
    Ok(if body == "no" {
        StatusCode::CONFLICT
    } else {
        StatusCode::CREATED
    })
}

async fn simple(mut tx: Tx) -> Result<StatusCode, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    Ok(StatusCode::CREATED)
}

async fn swallows(mut tx: Tx) -> Result<StatusCode, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    drop(sqlx::query("select 1 / 0").execute(&mut *tx).await);
    Ok(StatusCode::CREATED)
}

async fn keeps(State(app): State<App>, mut tx: Tx) -> Result<StatusCode, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    tokio::spawn(async move {
        app.gates.pass().await;
        drop(tx);
    });
    Ok(StatusCode::CREATED)
}

async fn twice(_one: Tx, _other: Tx) -> StatusCode {
    StatusCode::CREATED
}

async fn second_connection(State(app): State<App>, mut tx: Tx) -> Result<StatusCode, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    app.wait_for_own_key().await?;
    Ok(StatusCode::CREATED)
}

async fn savepoint(mut tx: Tx) -> Result<StatusCode, Failed> {
    insert_by_savepoint(&mut tx).await?;
    Ok(StatusCode::CREATED)
}
