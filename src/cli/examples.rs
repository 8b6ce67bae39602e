//! Examples at the end of each command's `--help`. A test parses them as the program would.

pub(super) const PAYONCE: &str = "\
Begin:
  payonce migrate                       # the schema
  payonce merchants create acme         # prints the merchant's API key, once
  payonce doctor                        # is everything as it should be?
  payonce serve

DATABASE_URL says which database, or --database-url; .env.example has every setting. Exit status: 0
done; 2 bad usage or configuration, in one line that names the setting; 1 anything else.";

pub(super) const SERVE: &str = "\
Examples:
  payonce serve
  payonce serve --listen 0.0.0.0:8080 --log-format json
  payonce serve --gateway stripe        # with PAYONCE_STRIPE_SECRET_KEY in the environment
  payonce serve --no-migrate            # under a role that may not change the schema

Pass secrets in the environment or in files: DATABASE_URL_FILE=/run/secrets/url replaces DATABASE_URL,
and each other secret has such a variable, too. Everybody on the machine can see a program's arguments.
SIGTERM stops it gracefully: requests in progress are answered first.

Traces are sent where OTEL_EXPORTER_OTLP_ENDPOINT says, as http://collector:4318, or
OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, as http://collector:4318/v1/traces; without either there are none.
OpenTelemetry's other OTEL_… variables apply, too.";

pub(super) const MIGRATE: &str = "\
Examples:
  payonce migrate

A schema that is newer than this program is left as it is. Programs that start at once take turns.";

pub(super) const MERCHANTS_CREATE: &str = "\
Examples:
  payonce merchants create acme --name Acme

Prints {\"merchantId\":…,\"apiKey\":…}. The key is kept only as a hash: store it where the merchant's
program finds it.";

pub(super) const MERCHANTS_SET: &str = "\
Examples:
  payonce merchants set acme --stripe-account acct_1032D82eZvKYlo2C
  payonce merchants set acme --stripe-account ''

Payments that have begun stay with the account that they began with.";

pub(super) const MERCHANTS_MOVE: &str = "\
Examples:
  payonce merchants move acme --to-cell 2 --to-database-url postgres://h2/payonce
  payonce merchants move acme --to-cell 2     # with PAYONCE_MOVE_DATABASE_URL, or ..._FILE, in the environment
  payonce merchants move acme --to-cell 2 --undo

It refuses the merchant's writes, waits for requests in progress, copies the merchant's rows, checks the
copy, and then lets the other cell serve the merchant. If it dies, run it again: it continues where it
stopped. At the end it prints the lines for the proxy's map of moved API keys (deploy/cells/haproxy.cfg).";

pub(super) const MERCHANTS_LIST: &str = "\
Examples:
  payonce merchants list
  payonce merchants list --json | jq -r '.[].merchantId'";

pub(super) const API_KEYS_CREATE: &str = "\
Examples:
  payonce api-keys create acme

To rotate a key: create another, let the merchant use it, then revoke the first.";

pub(super) const API_KEYS_LIST: &str = "\
Examples:
  payonce api-keys list acme
  payonce api-keys list acme --json | jq '.[] | select(.revokedAt == null)'";

pub(super) const API_KEYS_REVOKE: &str = "\
Examples:
  payonce api-keys revoke key_01a20d23330d777eafd0f58d99527f64

`payonce api-keys list` shows the IDs. Revoking a key twice does no harm.";

pub(super) const KEYS_SHOW: &str = "\
Examples:
  payonce idempotency-keys show acme create_payment order-1001
  payonce idempotency-keys show acme refund_payment refund-7 --json | jq .state";

pub(super) const KEYS_LIST: &str = "\
Examples:
  payonce idempotency-keys list --stuck
  payonce idempotency-keys list --state failed --limit 20
  payonce idempotency-keys list --json | jq -r '.[].key'

A stuck key is one that `payonce recover`, or any running node, takes over.";

pub(super) const RECOVER: &str = "\
Examples:
  payonce recover --once
  payonce recover                       # pass after pass, until nothing is left

It calls the gateway, so it needs the service's settings. Each pass prints a JSON report. Without --once
it gives up with exit status 1 if nothing was resolved for 60 s, or at once if everything left belongs
to a gateway that is not configured here or refuses this service. With --once the exit status is 0 after
the pass, whatever is left.";

pub(super) const DOCTOR: &str = "\
Examples:
  payonce doctor
  payonce doctor --no-migrate           # for a service whose role may not change the schema
  payonce doctor --json | jq '.findings[] | select(.result != \"ok\")'

Give it the settings of the service. It changes nothing and charges nothing. Exit status: 0 no
problem, though there may be warnings; 1 a problem.";

pub(super) const READY: &str = "\
Examples:
  payonce ready
  payonce ready --listen 127.0.0.1:18080

It asks /readyz and waits at most 3 s. Exit status: 0 ready; 1 not ready, or no service. With the
service's PAYONCE_TLS_CERT it asks by TLS, whatever host the certificate names.";

pub(super) const DEMO: &str = "\
Examples:
  payonce demo

It starts its own servers and creates merchants that no other run uses. Everything else in the
database stays as it is.";

pub(super) const COMPLETIONS: &str = "\
Examples:
  payonce completions bash > ~/.local/share/bash-completion/completions/payonce
  payonce completions zsh > ~/.zfunc/_payonce
  payonce completions fish > ~/.config/fish/completions/payonce.fish";

pub(super) const CLEANUP: &str = "\
Examples:
  payonce-cleanup
  payonce-cleanup --dry-run
  payonce-cleanup --metrics-file /var/lib/node_exporter/payonce.prom

Run it hourly (deploy/crontab.example). If one is running already, a second one ends at once, with exit status 0.";

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory, Parser};

    use crate::cli::Cli;
    use crate::cli::cleanup::CleanupCli;
    use crate::cli::usage::parse_from;

    /// The arguments that a shell would pass to the program: the words before a pipe, a redirection or a comment.
    fn words(line: &str) -> Vec<&str> {
        let words = line.split_whitespace();
        words
            .take_while(|word| !matches!(*word, "|" | ">" | "#"))
            .collect()
    }

    fn examples(command: &Command) -> Vec<Vec<String>> {
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        let examples = help.lines().filter(|line| line.starts_with("  payonce"));
        examples
            .map(|line| words(line).into_iter().map(str::to_owned).collect())
            .collect()
    }

    fn assert_parses<P: Parser>(mut words: Vec<String>, command: &Command) {
        // What the environment gives.
        for (flag, value) in [
            ("database-url", "postgres://h/d"),
            ("fingerprint-secret", "a secret of the tests"),
            ("to-database-url", "postgres://h2/d"),
        ] {
            let mut arguments = command.get_arguments();
            let is_given = words.iter().any(|word| word == &format!("--{flag}"));
            if !is_given && arguments.any(|argument| argument.get_long() == Some(flag)) {
                words.push(format!("--{flag}={value}"));
            }
        }
        let parsed = parse_from::<P>(&words, |_| true);
        assert!(parsed.is_ok(), "{words:?}: {:?}", parsed.err());
    }

    /// Each command without commands of its own, by its whole name.
    fn leaves(command: &Command, name: &str) -> Vec<(String, Command)> {
        let leaves = command.get_subcommands().flat_map(|command| {
            let name = format!("{name} {}", command.get_name());
            match command.has_subcommands() {
                true => leaves(command, &name),
                false => vec![(name, command.clone())],
            }
        });
        leaves.collect()
    }

    #[test]
    fn each_command_has_examples_of_itself_and_they_are_good() {
        let root = Cli::command();
        let leaves = leaves(&root, "payonce");
        for (name, command) in &leaves {
            let examples = examples(command);
            assert!(!examples.is_empty(), "{name} --help shows no example");
            for example in examples {
                assert!(example.join(" ").starts_with(name), "{example:?}");
                assert_parses::<Cli>(example, command);
            }
        }
        for example in examples(&root) {
            let name = example.join(" ");
            let mut named = leaves.iter().filter(|(leaf, _)| name.starts_with(leaf));
            let (_, command) = named.next().expect("one of the commands");
            assert_parses::<Cli>(example, command);
        }
        let cleanup = CleanupCli::command();
        let of_cleanup = examples(&cleanup);
        assert_eq!(of_cleanup.len(), 3);
        for example in of_cleanup {
            assert_parses::<CleanupCli>(example, &cleanup);
        }
    }
}
