//! The shared suite, on actix-web: see `payonce_suite` for what each route does.

#![allow(clippy::expect_used, reason = "it is all tests")]

use std::convert::Infallible;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use actix_web::dev::Service;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue, LOCATION};
use actix_web::middleware::DefaultHeaders;
use actix_web::test::init_service;
use actix_web::web::{self, Bytes, Data, Json, Path, PayloadConfig};
use actix_web::{App as ActixApp, HttpResponse, HttpServer, ResponseError};
use futures_util::{FutureExt, stream};
use payonce_actix::{Idempotent, Key, Refusal, Reply, Tx};
use payonce_suite::{App, Framework, Running, insert_by_savepoint, insert_order};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

payonce_suite::suite!(Actix);

struct Actix;

impl Framework for Actix {
    async fn start(app: App) -> Running {
        let engine = app.engine.clone();
        let server = HttpServer::new(move || {
            let gates = app.gates.clone();
            ActixApp::new()
                .app_data(Data::new(app.clone()))
                .wrap_fn(move |request, inner| {
                    let here = gates.presence();
                    let answered = inner.call(request);
                    async move {
                        let _here = here;
                        answered.await
                    }
                })
                .configure(|routes| configure(&app, routes))
        })
        .workers(2)
        .disable_signals()
        .bind("127.0.0.1:0")
        .expect("a port");
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        let serving = tokio::spawn(server);
        let stop = move || {
            async move {
                payonce_actix::stop(&handle, &engine).await;
                serving.await.expect("no panic").expect("served");
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
        let build = move || ActixApp::new().configure(|routes| nested(&app, routes));
        let server = HttpServer::new(build.clone())
            .workers(1)
            .disable_signals()
            .bind("127.0.0.1:0")
            .expect("a port");
        // One that starts all the same runs on.
        let ended = timeout(Duration::from_secs(60), server.run()).await;
        ended.expect("it ends").expect_err("it does not start");
        let built = AssertUnwindSafe(init_service(build()));
        let panic = built.catch_unwind().await.err().expect("it is not built");
        payonce_suite::said(&*panic)
    }
}

/// A wrap around a wrap of the same resource, and another middleware in between.
fn nested(app: &App, routes: &mut web::ServiceConfig) {
    routes.service(
        web::resource("/nested")
            .post(simple)
            .wrap(wrap(app, "inner"))
            .wrap(DefaultHeaders::new())
            .wrap(wrap(app, "outer")),
    );
}

fn wrap(app: &App, operation: &str) -> Idempotent {
    Idempotent::new(&app.engine)
        .operation(operation)
        .owner(|request| {
            let owner = request.headers().get("x-shop")?;
            owner.to_str().ok().map(str::to_owned)
        })
}

fn configure(app: &App, routes: &mut web::ServiceConfig) {
    let plain = |operation: &str| wrap(app, operation);
    let orders = plain("orders")
        .unsigned_field("sent_at")
        .sign_header("X-Currency");
    routes
        .service(
            web::resource("/orders")
                .route(web::post().to(create_order))
                .route(web::get().to(count_read))
                .route(web::head().to(count_read))
                .route(web::method(actix_web::http::Method::OPTIONS).to(count_read))
                .wrap(orders),
        )
        .service(
            web::scope("/customers/{customer}")
                .route("/orders", web::post().to(order_of))
                .wrap(plain("customers")),
        )
        .service(
            web::resource("/answers/{status}")
                .post(answer)
                .wrap(plain("answers")),
        )
        .service(web::resource("/panics").post(panics).wrap(plain("panics")))
        .service(
            web::resource("/streams/{kibibytes}")
                .post(streams)
                .wrap(plain("streams").max_answer(4096)),
        )
        .service(
            web::resource("/headers")
                .post(headers)
                .wrap(plain("headers").keep_headers(["X-Kept"])),
        )
        .service(
            web::resource("/odd-header")
                .post(odd_header)
                .wrap(plain("odd-header")),
        )
        .service(
            web::resource("/held")
                .post(held)
                .wrap(plain("held").wait(Duration::ZERO)),
        )
        .service(
            web::resource("/large")
                .app_data(PayloadConfig::new(11 * 1024 * 1024))
                .post(large)
                .wrap(plain("large").max_body(11 * 1024 * 1024)),
        )
        .service(
            web::resource("/optional")
                .post(optional)
                .wrap(plain("optional").key_optional()),
        )
        .service(
            web::resource("/brief")
                .post(simple)
                .wrap(plain("brief").ttl(Duration::from_secs(3600))),
        )
        .service(
            web::resource("/own-form")
                .post(simple)
                .wrap(plain("own-form").refusals(own_form)),
        )
        .service(
            web::resource("/swallows")
                .post(swallows)
                .wrap(plain("swallows").key_optional()),
        )
        .service(web::resource("/keeps").post(keeps).wrap(plain("keeps")))
        .service(web::resource("/bare").post(simple))
        .service(web::resource("/twice").post(twice).wrap(plain("twice")))
        .service(
            web::scope("/nested")
                .service(web::resource("").post(simple).wrap(plain("inner")))
                .wrap(plain("outer")),
        )
        .service(
            web::resource("/second-connection")
                .post(second_connection)
                .wrap(plain("second-connection").timeout(Duration::from_millis(300))),
        )
        .service(
            web::resource("/savepoint")
                .post(savepoint)
                .wrap(plain("savepoint")),
        );
}

fn own_form(refusal: &Refusal) -> Option<Reply> {
    matches!(refusal, Refusal::KeyMissing).then(|| Reply {
        status: 418,
        headers: vec![("content-type".to_owned(), "text/plain".to_owned())],
        body: Bytes::from(refusal.code()),
    })
}

/// A query that failed.
#[derive(Debug)]
struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a query failed")
    }
}

impl ResponseError for Failed {}

impl From<sqlx::Error> for Failed {
    fn from(_: sqlx::Error) -> Self {
        Self
    }
}

#[derive(Deserialize)]
struct NewOrder {
    sku: String,
    quantity: i32,
}

async fn create_order(mut tx: Tx, Json(order): Json<NewOrder>) -> Result<HttpResponse, Failed> {
    let id = insert_order(&mut tx, &order.sku, order.quantity).await?;
    let location = (LOCATION, format!("/orders/{id}"));
    Ok(HttpResponse::Created()
        .append_header(location)
        .json(json!({"id": id})))
}

async fn count_read(app: Data<App>) -> String {
    app.gates.count_read().to_string()
}

async fn order_of(
    customer: Path<String>,
    mut tx: Tx,
    Key(key): Key,
    Json(order): Json<NewOrder>,
) -> Result<HttpResponse, Failed> {
    insert_order(&mut tx, &order.sku, order.quantity).await?;
    let body = json!({"customer": *customer, "key": key.as_str(), "sku": order.sku});
    Ok(HttpResponse::Created().json(body))
}

async fn answer(status: Path<u16>, mut tx: Tx) -> Result<HttpResponse, Failed> {
    let id = insert_order(&mut tx, "tea", 1).await?;
    let status = StatusCode::from_u16(*status).map_err(|_| Failed)?;
    Ok(HttpResponse::build(status)
        .append_header((LOCATION, "/elsewhere"))
        .json(json!({"id": id})))
}

async fn panics(mut tx: Tx) -> Result<HttpResponse, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    panic!("as the test asks");
}

async fn streams(kibibytes: Path<usize>, mut tx: Tx) -> Result<HttpResponse, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    let pieces = (0..*kibibytes).map(|_| Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 1024])));
    Ok(HttpResponse::Ok().streaming(stream::iter(pieces)))
}

async fn headers(mut tx: Tx) -> Result<HttpResponse, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    let mut response = HttpResponse::Ok();
    Ok(response
        .append_header(("x-kept", "1"))
        .append_header(("x-dropped", "1"))
        .finish())
}

async fn odd_header(mut tx: Tx) -> Result<HttpResponse, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    let value = HeaderValue::from_bytes(&[0xe9]).map_err(|_| Failed)?;
    Ok(HttpResponse::Ok()
        .append_header((HeaderName::from_static("x-odd"), value))
        .finish())
}

async fn held(app: Data<App>, mut tx: Tx) -> Result<HttpResponse, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    app.gates.pass().await;
    Ok(HttpResponse::Created().finish())
}

async fn large(mut tx: Tx, body: Bytes) -> Result<HttpResponse, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    Ok(HttpResponse::Created().body(body.len().to_string()))
}

async fn optional(key: Option<Key>, mut tx: Tx, body: String) -> Result<HttpResponse, Failed> {
    insert_order(&mut tx, if key.is_some() { "keyed" } else { "keyless" }, 1).await?;
    Ok(if body == "no" {
        HttpResponse::Conflict()
    } else {
        HttpResponse::Created()
    }
    .finish())
}

async fn simple(mut tx: Tx) -> Result<HttpResponse, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    Ok(HttpResponse::Created().finish())
}

async fn swallows(mut tx: Tx) -> Result<HttpResponse, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    drop(sqlx::query("select 1 / 0").execute(&mut *tx).await);
    Ok(HttpResponse::Created().finish())
}

async fn keeps(app: Data<App>, mut tx: Tx) -> Result<HttpResponse, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    actix_web::rt::spawn(async move {
        app.gates.pass().await;
        drop(tx);
    });
    Ok(HttpResponse::Created().finish())
}

async fn twice(_one: Tx, _other: Tx) -> HttpResponse {
    HttpResponse::Created().finish()
}

async fn second_connection(app: Data<App>, mut tx: Tx) -> Result<HttpResponse, Failed> {
    insert_order(&mut tx, "tea", 1).await?;
    app.wait_for_own_key().await?;
    Ok(HttpResponse::Created().finish())
}

async fn savepoint(mut tx: Tx) -> Result<HttpResponse, Failed> {
    insert_by_savepoint(&mut tx).await?;
    Ok(HttpResponse::Created().finish())
}
