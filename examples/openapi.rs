//! Prints the OpenAPI document, as `GET /openapi.json` serves it: `make openapi` keeps it in `openapi.json`.

fn main() {
    print!("{}", payonce::http::openapi_json());
}
