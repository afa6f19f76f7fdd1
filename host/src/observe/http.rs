//! The operator's HTTP pages: `/healthz` (the process runs) and `/readyz` (changes are streaming).
//!
//! Listens on loopback by default. Nothing here changes state. The only data of rows on these pages
//! is in the error texts of guests.

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use walgate_wire::Lsn;

use crate::{clock::now_micros, observe::status::Status};

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, status: Status) {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(show_readiness))
        .with_state(status);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "HTTP server ended");
    }
}

async fn show_readiness(State(status): State<Status>) -> (StatusCode, Json<Value>) {
    let lag_ms = status.lag().micros(now_micros()) as f64 / 1000.0;
    let tables: Value = status
        .counts()
        .into_iter()
        .map(|(token, counts)| (token.to_string(), json!(counts)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    if !status.is_streaming() {
        let reason = status.problem().unwrap_or_else(|| "starting".to_owned());
        let mut body =
            json!({"ready": false, "reason": reason, "tables": tables, "wal": status.wal()});
        if status.has_streamed() {
            body["lag_ms"] = lag_ms.into();
        }
        return (StatusCode::SERVICE_UNAVAILABLE, Json(body));
    }
    let body = json!({
        "ready": true,
        "confirmed_lsn": Lsn(status.confirmed_lsn()).to_string(),
        "lag_ms": lag_ms,
        "tables": tables,
        "wal": status.wal(),
    });
    (StatusCode::OK, Json(body))
}
