//! Settings that are valid, but questionable.

use std::time::Duration;

use super::Finding;
use crate::config::{ServeArgs, is_example};
use crate::settings::GatewayKind;
use crate::startup::STOP_PATIENCE;

/// A healthy process may pause for this long, because of its scheduler or its disk. A shorter lease would be taken over from a process
/// that is alive.
const SHORTEST_SOUND_LEASE: Duration = Duration::from_secs(1);

/// Clients and proxies rarely wait longer for an answer.
const LONGEST_SOUND_WAIT: Duration = Duration::from_secs(60);

/// Clients and queues retry for hours. If the key has expired by then, they are refused.
const SHORTEST_SOUND_TTL: Duration = Duration::from_secs(60 * 60);

/// Checking more often costs the database more than it helps a duplicate.
const SHORTEST_SOUND_PAUSE: Duration = Duration::from_millis(5);

/// The work of a dead process waits for its lease, and then for this.
const LONGEST_SOUND_RECOVERY: Duration = Duration::from_secs(60);

pub(super) fn examine(args: &ServeArgs) -> Vec<Finding> {
    vec![
        fingerprint_secret(args),
        example_secrets(args),
        key_ttl(args),
        lock_timeout(args),
        waiting(args),
        gateway_timeout(args),
        recovery_interval(args),
        unsafe_database(args),
    ]
}

fn fingerprint_secret(args: &ServeArgs) -> Finding {
    const NAME: &str = "fingerprint-secret";
    let Some(secret) = &args.idempotency.fingerprint_secret else {
        return Finding::problem(
            NAME,
            "PAYONCE_FINGERPRINT_SECRET is not set",
            "set it to the service's secret; for a new database generate one with `openssl rand -hex 32`",
        );
    };
    let advice = "make one by `openssl rand -hex 32`, and change over as docs/OPERATIONS.md says under \"Rotate the fingerprint secret\"";
    if secret.is_public() {
        let found = "PAYONCE_FINGERPRINT_SECRET holds a value that is public: it stands in this program's source";
        return public(NAME, args, found, advice);
    }
    if secret.has_short_secret() {
        let found =
            "PAYONCE_FINGERPRINT_SECRET holds a secret of less than 16 bytes, which can be guessed";
        return Finding::warning(NAME, found, advice);
    }
    Finding::ok(NAME, "set, and long enough")
}

/// The other secrets, whose published examples let anybody in.
fn example_secrets(args: &ServeArgs) -> Finding {
    const NAME: &str = "example-secrets";
    let console = args.console.console_token.as_ref();
    let stripe = args.gateway.stripe_secret_key.as_ref();
    let examples = [
        ("DATABASE_URL", args.database.has_example_password()),
        ("PAYONCE_CONSOLE_TOKEN", console.is_some_and(is_example)),
        ("PAYONCE_STRIPE_SECRET_KEY", stripe.is_some_and(is_example)),
    ];
    let examples: Vec<&str> = examples
        .iter()
        .filter(|(_, is_example)| *is_example)
        .map(|(name, _)| *name)
        .collect();
    if examples.is_empty() {
        return Finding::ok(NAME, "none is used");
    }
    let found = format!(
        "{}: the password or secret stands in this program's source, so everybody knows it",
        examples.join(" and ")
    );
    public(NAME, args, found, "set one of your own")
}

/// A public value is good enough for a try. Where money moves it is a problem.
fn public(
    name: &'static str,
    args: &ServeArgs,
    found: impl Into<String>,
    advice: &'static str,
) -> Finding {
    match args.gateway.gateway {
        GatewayKind::Simulated => Finding::warning(name, found, advice),
        GatewayKind::Stripe => Finding::problem(name, found, advice),
    }
}

fn key_ttl(args: &ServeArgs) -> Finding {
    const NAME: &str = "key-ttl";
    let ttl = args.idempotency.key_ttl;
    let longest_request = args.gateway.gateway_timeout;
    if ttl <= longest_request {
        let found = format!(
            "PAYONCE_KEY_TTL is {}, no longer than PAYONCE_GATEWAY_TIMEOUT, {}",
            shown(ttl),
            shown(longest_request)
        );
        return Finding::problem(
            NAME,
            found,
            "keys expire before they are answered: set it to 24h",
        );
    }
    if ttl < SHORTEST_SOUND_TTL {
        let found = format!("keys are forgotten after {}", shown(ttl));
        return Finding::warning(
            NAME,
            found,
            "a retry that comes later is refused as expired: set PAYONCE_KEY_TTL to 24h",
        );
    }
    Finding::ok(NAME, shown(ttl))
}

fn lock_timeout(args: &ServeArgs) -> Finding {
    const NAME: &str = "lock-timeout";
    let lease = args.idempotency.lock_timeout;
    if lease < SHORTEST_SOUND_LEASE {
        let found = format!("a claim is held for {} without its owner", shown(lease));
        return Finding::warning(
            NAME,
            found,
            "a short pause of a healthy process loses its claims, and the gateway is called again under the same name: set PAYONCE_LOCK_TIMEOUT to 5s",
        );
    }
    if lease > LONGEST_SOUND_WAIT {
        let found = format!("a claim is held for {} without its owner", shown(lease));
        return Finding::warning(
            NAME,
            found,
            "after a crash, clients wait that long: set PAYONCE_LOCK_TIMEOUT to 5s",
        );
    }
    let renewed = "; its owner renews it four times in that while it waits for the gateway";
    Finding::ok(NAME, shown(lease) + renewed)
}

fn waiting(args: &ServeArgs) -> Finding {
    const NAME: &str = "duplicates-wait";
    let config = args.idempotency();
    let patience = config.patience();
    let found = format!(
        "PAYONCE_RETRY_INTERVAL × PAYONCE_MAX_RETRIES is {}",
        shown(patience)
    );
    if patience > LONGEST_SOUND_WAIT {
        return Finding::warning(
            NAME,
            found,
            "clients and proxies give up sooner: set PAYONCE_RETRY_INTERVAL=50ms and PAYONCE_MAX_RETRIES=100",
        );
    }
    // The last check has to come after the lease of a process that died just before the duplicate came.
    if patience <= config.lock_timeout + config.retry_interval {
        let advice = "not longer than PAYONCE_LOCK_TIMEOUT: behind a proxy, a duplicate of a request whose process died may be told 409 and not the outcome; set PAYONCE_LOCK_TIMEOUT to 3s";
        return Finding::warning(NAME, found, advice);
    }
    if config.retry_interval < SHORTEST_SOUND_PAUSE {
        let found = format!("{found}, with a look each {}", shown(config.retry_interval));
        return Finding::warning(
            NAME,
            found,
            "each waiting key asks the database so often: set PAYONCE_RETRY_INTERVAL to 50ms",
        );
    }
    Finding::ok(NAME, found)
}

fn gateway_timeout(args: &ServeArgs) -> Finding {
    const NAME: &str = "gateway-timeout";
    let timeout = args.gateway.gateway_timeout;
    if timeout > STOP_PATIENCE {
        let found = format!(
            "{}, and a service that stops waits for {} only",
            shown(timeout),
            shown(STOP_PATIENCE)
        );
        return Finding::warning(
            NAME,
            found,
            "a stop leaves the slowest calls to recovery: set PAYONCE_GATEWAY_TIMEOUT to 10s",
        );
    }
    let latency = args.gateway.simulated_gateway_latency;
    if args.gateway.gateway == GatewayKind::Simulated && latency >= timeout {
        let found = format!(
            "{}, and the simulated gateway takes {}",
            shown(timeout),
            shown(latency)
        );
        return Finding::warning(
            NAME,
            found,
            "each payment is answered 202: lower PAYONCE_SIMULATED_GATEWAY_LATENCY",
        );
    }
    Finding::ok(NAME, shown(timeout))
}

fn recovery_interval(args: &ServeArgs) -> Finding {
    const NAME: &str = "recovery-interval";
    let interval = args.recovery_interval;
    if interval > LONGEST_SOUND_RECOVERY {
        return Finding::warning(
            NAME,
            shown(interval),
            "what a dead process left behind waits that long: set PAYONCE_RECOVERY_INTERVAL to 1s",
        );
    }
    Finding::ok(NAME, shown(interval))
}

fn unsafe_database(args: &ServeArgs) -> Finding {
    const NAME: &str = "unsafe-database";
    if args.database.allow_unsafe_database {
        return Finding::warning(
            NAME,
            "a database that may lose confirmed commits is allowed",
            "outside of tests, leave --allow-unsafe-database away",
        );
    }
    Finding::ok(NAME, "not allowed")
}

fn shown(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
