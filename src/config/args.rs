//! The arguments of `ambassador` and `ambassador check`.
//!
//! Values are strings: `config::load` parses them, and reports all mistakes at once.

use std::path::PathBuf;

use clap::{ArgMatches, Command, FromArgMatches};

use super::settings::{SETTINGS, Setting, SettingValues};

/// The arguments of `ambassador` and `ambassador check`.
#[expect(
    rustdoc::broken_intra_doc_links,
    reason = "these comments are the help text: brackets are the grammar's"
)]
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// Routes: LISTEN=TARGET[,TARGET...][?option=value[&...]], or the two words HOST PORT
    ///
    /// LISTEN is 6379, 127.0.0.1:6379, [::1]:6379, 8000-8100, 53/udp, /run/pg.sock, or peer:NAME for peers. TARGET is
    /// host[:port], srv://NAME, docker://NAME[:PORT], docker://label:KEY=VALUE[:PORT], etcd://HOST/PREFIX,
    /// consul://SERVICE, file:/path, unix:/path, peer://HOST/NAME or peer://@IDENTITY/NAME. Options: name, balance,
    /// slow-start, backup, hold, connect-timeout, idle-timeout, half-close-timeout, max-duration, max-sessions,
    /// max-sessions-per-endpoint, rate, health, health-interval, health-timeout, health-rise, health-fall,
    /// on-unhealthy, allow, deny, on-remove, identity, peers. More routes are read from AMBASSADOR_ROUTES, separated
    /// by white space.
    #[arg(value_name = "ROUTE")]
    pub routes: Vec<String>,

    /// TOML file with routes and settings; the routes are reloaded when it changes [env: AMBASSADOR_CONFIG]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,

    /// Read link variables such as REDIS_PORT_6379_TCP=tcp://host:6379 in addition to the given routes
    ///
    /// They are read by default when no routes are given.
    #[arg(long)]
    pub links: bool,

    /// Read labeled containers, and the links of this container, from Docker in addition to the given routes
    ///
    /// They are read by default when no routes are given and Docker's socket exists. A container defines a route by the
    /// label ambassador.listen.LISTEN=PORT[?options].
    #[arg(long)]
    pub docker: bool,

    /// Allow containers of different images and services to share a listener by label
    ///
    /// By default only replicas share one: containers of one Compose service, or of one image with the same options.
    #[arg(long, help_heading = DOCKER)]
    pub share_labels: bool,

    /// Open a route for every exposed port of this container and track it; repeatable
    #[arg(long, value_name = "CONTAINER", help_heading = DOCKER)]
    pub name: Vec<String>,

    /// Path of Docker's socket [env: DOCKER_HOST] [default: /var/run/docker.sock]
    #[arg(long, value_name = "PATH", help_heading = DOCKER)]
    pub sock: Option<PathBuf>,

    /// Accepted for compatibility with grand-ambassador; ambassador always waits for containers
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = DOCKER)]
    pub wait: Option<bool>,

    /// Use TLS to connect to Docker over TCP
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = DOCKER)]
    pub tls: Option<bool>,

    /// Use TLS to connect to Docker and verify its certificate [env: DOCKER_TLS_VERIFY]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = DOCKER)]
    pub tlsverify: Option<bool>,

    /// CA that signed Docker's certificate [default: ca.pem of DOCKER_CERT_PATH or ~/.docker]
    #[arg(long, value_name = "PATH", help_heading = DOCKER)]
    pub tlscacert: Option<PathBuf>,

    /// Client certificate [default: cert.pem of DOCKER_CERT_PATH or ~/.docker]
    #[arg(long, value_name = "PATH", help_heading = DOCKER)]
    pub tlscert: Option<PathBuf>,

    /// Key of the client certificate [default: key.pem of DOCKER_CERT_PATH or ~/.docker]
    #[arg(long, value_name = "PATH", help_heading = DOCKER)]
    pub tlskey: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) settings: SettingFlags,
}

/// The flags of [`SETTINGS`] that were given.
#[derive(Clone, Debug, Default)]
pub struct SettingFlags(pub SettingValues);

impl clap::Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().map(Setting::flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        SettingFlags::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<SettingFlags, clap::Error> {
        let given = |setting: &'static Setting| {
            let values: Vec<&str> = matches.get_many::<String>(setting.name)?.map(String::as_str).collect();
            Some((setting, values.join(",")))
        };
        Ok(SettingFlags(SETTINGS.iter().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = SettingFlags::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The flags of the credentials for peers that were given, for a subcommand that has no others.
#[derive(Clone, Debug, Default)]
pub struct CredentialFlags(pub SettingValues);

impl clap::Args for CredentialFlags {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().filter(|setting| setting.is_credential()).map(Setting::flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        CredentialFlags::augment_args(command)
    }
}

impl FromArgMatches for CredentialFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<CredentialFlags, clap::Error> {
        let of_peers = SETTINGS.iter().filter(|setting| setting.is_credential());
        let given =
            |setting: &'static Setting| Some((setting, matches.get_one::<String>(setting.name)?.clone()));
        Ok(CredentialFlags(of_peers.filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = CredentialFlags::from_arg_matches(matches)?;
        Ok(())
    }
}

const DOCKER: &str = "Docker";

/// The examples below the options in `--help`.
pub const EXAMPLES: &str = "\
Examples:
  Forward a port to redis:
    ambassador 6379=redis:6379
  Balance two databases, wait up to 30 seconds for one to be available, and forward DNS:
    ambassador '5432=db1,db2?balance=round-robin&hold=30s' 53/udp=10.0.0.2:53
  Track a container by name:
    ambassador 5432=docker://postgres
    ambassador -name testapp_fpm_1 -name testapp_nginx_1
  The arguments and the link variables of svendowideit/ambassador:
    ambassador redis.example.com 6379
    REDIS_PORT_6379_TCP=tcp://192.168.1.52:6379 ambassador
  Encrypt between two hosts that have the same secret file; the first offers redis, the second connects to it:
    ambassador --peer-secret-file secret peer:redis=redis:6379
    ambassador --peer-secret-file secret 6379=peer://host1/redis
  Check a configuration without running it:
    ambassador check --config /etc/ambassador.toml";

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::Parser;

    use super::*;
    use crate::config::legacy_args::translate;

    /// The arguments alone.
    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        run: RunArgs,
    }

    fn parse(words: &[&str]) -> RunArgs {
        let words = std::iter::once("ambassador").chain(words.iter().copied()).map(OsString::from);
        Cli::try_parse_from(translate(words.collect())).unwrap_or_else(|error| panic!("{error}")).run
    }

    #[test]
    fn the_definition_is_valid() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_variable_and_shows_examples() {
        use clap::CommandFactory;
        let help = Cli::command().render_long_help().to_string();
        assert!(help.starts_with("The arguments alone"), "{help}");
        for word in [
            "AMBASSADOR_ROUTES",
            "AMBASSADOR_CONFIG",
            "AMBASSADOR_ADMIN",
            "AMBASSADOR_WORKERS",
            "AMBASSADOR_PEER_SECRET_FILE",
            "Peers:",
            "DOCKER_HOST",
            "DOCKER_TLS_VERIFY",
            "DOCKER_CERT_PATH",
            "ambassador 6379=redis:6379",
        ] {
            assert!(help.contains(word), "{word} is missing in\n{help}");
        }
    }

    #[test]
    fn flags_and_routes_are_accepted_in_any_order() {
        let args = parse(&["80=a", "--config", "/etc/a.toml", "81=b", "--links", "--docker", "--workers=2"]);
        assert_eq!(args.routes, ["80=a", "81=b"]);
        assert_eq!(args.config, Some(PathBuf::from("/etc/a.toml")));
        assert!(args.links && args.docker);
        assert_eq!(args.settings.0, [(Setting::find("workers").unwrap(), "2".to_owned())]);
    }

    #[test]
    fn flag_of_a_list_may_be_repeated() {
        let args = parse(&["--peer-dial", "a", "--peer-dial=b,c", "--admin-host=d"]);
        let values: Vec<_> =
            args.settings.0.iter().map(|(setting, value)| (setting.name, value.as_str())).collect();
        assert_eq!(values, [("admin-host", "d"), ("peer-dial", "a,b,c")]);
    }

    #[test]
    fn the_usage_of_grand_ambassador_is_accepted() {
        let args = parse(&["-name", "container_name", "-sock", "/docker.sock", "-wait=false", "-tls=false"]);
        assert_eq!(args.name, ["container_name"]);
        assert_eq!(args.sock, Some(PathBuf::from("/docker.sock")));
        assert_eq!((args.wait, args.tls), (Some(false), Some(false)));
    }

    #[test]
    fn a_compose_command_in_one_word_is_accepted() {
        let args = parse(&["-name testapp_fpm_1 -name testapp_nginx_1"]);
        assert_eq!(args.name, ["testapp_fpm_1", "testapp_nginx_1"]);
    }
}
