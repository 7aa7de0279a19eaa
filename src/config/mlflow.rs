//! Options for models that an MLflow server keeps.

use std::time::Duration;

use clap::Args as ClapArgs;
use predictd_registry::mlflow::server_settings::{MlflowCredentials, MlflowServer, Secret};

use super::parsers::parse_server_url;

/// Shortest time between two looks at an alias.
const MIN_FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// Longest.
const MAX_FOLLOW_INTERVAL: Duration = Duration::from_hours(24);

/// Options for models that an MLflow server keeps.
#[derive(Debug, ClapArgs)]
pub struct MlflowArgs {
    /// MLflow server that versions may be registered from, such as `http://localhost:5000`; credentials are in the variables `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`, or `MLFLOW_TRACKING_TOKEN` [default: what `MLFLOW_TRACKING_URI` says, if that is an address of HTTP].
    #[arg(long, env = "PREDICTD_MLFLOW", default_value = "", hide_default_value = true, value_name = "URL")]
    pub mlflow: String,

    /// Serve what an alias stands for, LOCAL=models:/NAME@ALIAS, and switch when it moves; several with commas between [default: none].
    #[arg(long, env = "PREDICTD_FOLLOW", value_name = "LOCAL=URI", value_delimiter = ',', value_parser = parse_follow)]
    pub follow: Vec<FollowedAlias>,

    /// Time between two looks at an alias that is followed.
    #[arg(long, env = "PREDICTD_FOLLOW_INTERVAL", default_value = "10s", value_parser = humantime::parse_duration, value_name = "TIME")]
    pub follow_interval: Duration,

    /// The name that other programs use for the same.
    #[arg(long, env = "MLFLOW_TRACKING_URI", hide = true, default_value = "")]
    pub mlflow_tracking_uri: String,

    /// A user of the MLflow server.
    #[arg(long, env = "MLFLOW_TRACKING_USERNAME", hide = true, hide_env_values = true)]
    pub mlflow_tracking_username: Option<Secret>,

    /// That user's password.
    #[arg(long, env = "MLFLOW_TRACKING_PASSWORD", hide = true, hide_env_values = true)]
    pub mlflow_tracking_password: Option<Secret>,

    /// A token that the MLflow server wants instead.
    #[arg(long, env = "MLFLOW_TRACKING_TOKEN", hide = true, hide_env_values = true)]
    pub mlflow_tracking_token: Option<Secret>,
}

/// A model here that is what an alias stands for there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedAlias {
    /// Its name here.
    pub local_name: String,
    /// `models:/NAME@ALIAS`.
    pub uri: String,
}

fn parse_follow(typed: &str) -> Result<FollowedAlias, String> {
    let (local, uri) = typed.trim().split_once('=').ok_or("this is not LOCAL=models:/NAME@ALIAS")?;
    Ok(FollowedAlias { local_name: local.to_owned(), uri: uri.to_owned() })
}

/// Models that an MLflow server keeps.
#[derive(Debug, Clone, Default)]
pub struct MlflowSettings {
    /// The server, if there is one.
    pub server: Option<MlflowServer>,
    /// What is followed.
    pub followed_aliases: Vec<FollowedAlias>,
    /// Time between two looks.
    pub follow_interval: Duration,
}

impl MlflowSettings {
    /// What the options say.
    ///
    /// # Errors
    /// A sentence with an option's name. No address is quoted: it may hold a secret.
    pub fn from_args(args: &MlflowArgs) -> Result<Self, String> {
        let [username, token] = [&args.mlflow_tracking_username, &args.mlflow_tracking_token]
            .map(|secret| secret.clone().filter(|Secret(text)| !text.is_empty()));
        let user = username.map(|name| {
            // A password may be empty.
            let password = args.mlflow_tracking_password.clone().unwrap_or_else(|| Secret(String::new()));
            MlflowCredentials::User(name, password)
        });
        let credentials = user.or_else(|| token.map(MlflowCredentials::Token));
        let typed = match (args.mlflow.as_str(), args.mlflow_tracking_uri.as_str()) {
            // Other programs may keep their models in a directory or a database: that is not meant.
            ("", uri) => Some(uri).filter(|uri| uri.starts_with("http://") || uri.starts_with("https://")),
            (typed, _) => Some(typed),
        };
        let secrets = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN";
        let url = typed.map(|typed| parse_server_url("--mlflow", typed, "http://localhost:5000", secrets));
        let server = url.transpose()?.map(|url| MlflowServer { url, credentials });
        if !args.follow.is_empty() && server.is_none() {
            return Err("--follow: there is no --mlflow to follow".to_owned());
        }
        if !(MIN_FOLLOW_INTERVAL..=MAX_FOLLOW_INTERVAL).contains(&args.follow_interval) {
            return Err(format!("--follow-interval {:?} is not between a second and a day", args.follow_interval));
        }
        Ok(Self { server, followed_aliases: args.follow.clone(), follow_interval: args.follow_interval })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: MlflowArgs,
    }

    fn parse_settings(typed: &[&str]) -> Result<MlflowSettings, String> {
        let command = Command::try_parse_from(std::iter::once(&"x").chain(typed)).map_err(|error| error.to_string())?;
        MlflowSettings::from_args(&command.args)
    }

    fn server_url(typed: &[&str]) -> String {
        parse_settings(typed).unwrap().server.unwrap().url.to_string()
    }

    #[test]
    fn mlflow_tracking_uri_used_only_if_http() {
        assert_eq!(parse_settings(&[]).unwrap().server, None);
        assert_eq!(parse_settings(&["--mlflow-tracking-uri", "sqlite:///x"]).unwrap().server, None);
        assert_eq!(server_url(&["--mlflow-tracking-uri", "http://a:5000"]), "http://a:5000/");
        assert_eq!(server_url(&["--mlflow", "https://b/c", "--mlflow-tracking-uri", "http://a"]), "https://b/c");
    }

    #[test]
    fn mlflow_credentials_debug_hides_secrets() {
        let typed =
            ["--mlflow", "http://a", "--mlflow-tracking-username", "CANARYu", "--mlflow-tracking-password", "CANARYp"];
        let server = parse_settings(&typed).unwrap().server.unwrap();
        assert_eq!(server.credentials.as_ref().unwrap().authorization_header(), "Basic Q0FOQVJZdTpDQU5BUllw");
        assert!(!format!("{server:?}").contains("CANARY"));
        let token =
            parse_settings(&["--mlflow", "http://a", "--mlflow-tracking-token", "CANARYt"]).unwrap().server.unwrap();
        assert_eq!(token.credentials.as_ref().unwrap().authorization_header(), "Bearer CANARYt");
        assert!(!format!("{token:?}").contains("CANARY"));
        for wrong in ["http://CANARY@a", "http://a?CANARY", "http://u:CANARY@a", "ftp://CANARY", "CANARY"] {
            let refused = parse_settings(&["--mlflow", wrong]).unwrap_err();
            assert!(refused.starts_with("--mlflow: ") && !refused.contains("CANARY"), "{refused}");
        }
    }

    #[test]
    fn follow_without_server_refused() {
        let followed = parse_settings(&["--mlflow", "http://a", "--follow", "m=models:/M@champion,n=models:/N@x"])
            .unwrap()
            .followed_aliases;
        assert_eq!(followed.len(), 2);
        assert_eq!(followed[0], FollowedAlias { local_name: "m".to_owned(), uri: "models:/M@champion".to_owned() });
        assert!(parse_settings(&["--follow", "m=models:/M@champion"]).unwrap_err().contains("no --mlflow"));
        assert!(parse_settings(&["--mlflow", "http://a", "--follow", "m"]).is_err());
        assert!(parse_settings(&["--follow-interval", "10ms"]).unwrap_err().contains("--follow-interval"));
    }
}
