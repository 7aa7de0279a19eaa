//! Origins of web pages that may use the data listener.

/// Which web pages may use the data listener.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CorsOrigins {
    /// None: browsers show answers to no page of another origin.
    #[default]
    None,
    /// All.
    Any,
    /// Those of these origins.
    List(Vec<String>),
}

impl CorsOrigins {
    /// Parses the entries of the option.
    ///
    /// # Errors
    /// A sentence that names the option and the first entry that is no origin.
    pub fn parse(typed: &[String]) -> Result<Self, String> {
        let typed: Vec<&str> = typed.iter().map(|entry| entry.trim()).filter(|entry| !entry.is_empty()).collect();
        match typed[..] {
            [] => return Ok(Self::None),
            ["*"] => return Ok(Self::Any),
            _ => {}
        }
        let origin = |entry: &&str| {
            normalize_origin(entry).ok_or_else(|| {
                format!(
                    "--cors-origins {entry}: this is no origin; write scheme, host and port without a path, such as https://app.example, or * alone for all"
                )
            })
        };
        typed.iter().map(origin).collect::<Result<_, _>>().map(Self::List)
    }
}

/// An origin as browsers send it: in lower case, without the default port of its scheme.
fn normalize_origin(typed: &str) -> Option<String> {
    let typed = typed.to_ascii_lowercase();
    let (scheme, host) = typed.split_once("://")?;
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b':' | b'[' | b']');
    let host = host.strip_suffix(default_port).unwrap_or(host);
    (!host.is_empty() && host.bytes().all(fits)).then(|| format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(typed: &str) -> Result<CorsOrigins, String> {
        CorsOrigins::parse(&typed.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    fn origin_list(origins: &[&str]) -> CorsOrigins {
        CorsOrigins::List(origins.iter().map(|&o| o.to_owned()).collect())
    }

    #[test]
    fn cors_origins_typed_are_normalized() {
        assert_eq!(parse(""), Ok(CorsOrigins::None));
        assert_eq!(parse("*"), Ok(CorsOrigins::Any));
        assert_eq!(
            parse("https://App.example, http://localhost:3000"),
            Ok(origin_list(&["https://app.example", "http://localhost:3000"]))
        );
        assert_eq!(
            parse("https://a:443,http://b:80,http://c:443"),
            Ok(origin_list(&["https://a", "http://b", "http://c:443"]))
        );
        for wrong in
            ["app.example", "https://", "https://a/", "https://a/b", "null", "*,https://a", "ftp://a", "https://u@a"]
        {
            let error = parse(wrong).unwrap_err();
            assert!(error.starts_with("--cors-origins ") && error.contains("no origin"), "{error}");
        }
    }
}
