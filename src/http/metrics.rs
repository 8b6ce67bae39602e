//! The metrics of the HTTP edge.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

use crate::merchants::Cell;

/// Shows the process's cell.
pub fn show_cell(cell: Option<Cell>) {
    if let Some(cell) = cell {
        metrics::gauge!("payonce_cell").set(cell.number());
    }
}

/// Describes the edge's metrics to the process's recorder.
pub fn describe_metrics() {
    describe_counter!(
        "payonce_http_requests_total",
        "Requests, by method, route and status"
    );
    describe_histogram!(
        "payonce_http_request_seconds",
        Unit::Seconds,
        "Duration of requests"
    );
    describe_counter!(
        "payonce_rate_limited_total",
        "Requests that were refused because their merchant sent too many"
    );
    describe_gauge!(
        "payonce_cell",
        "Number of the cell that this process belongs to; absent where there are no cells"
    );
    describe_gauge!(
        "payonce_keys_processing",
        "Keys in PROCESSING, in the whole database"
    );
    describe_gauge!(
        "payonce_keys_oldest_processing_seconds",
        "Age of the oldest key in PROCESSING"
    );
    describe_gauge!(
        "payonce_database_reachable",
        "1 if the database answered this request for metrics, otherwise 0"
    );
    describe_gauge!(
        "payonce_database_connections",
        "Connections of this process's pool"
    );
    describe_gauge!(
        "payonce_database_connections_idle",
        "Connections of this process's pool that are not in use"
    );
}
