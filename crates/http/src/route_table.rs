//! The table of routes: each is listed with the scope that it needs.
//!
//! A router of axum can be made of [`RouteTable`] only, and every way to add a route to it says
//! whether the route is public or which scope it needs: no other route compiles.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use predictd_api::problem::Problem;
use utoipa::openapi::path::{Operation, Paths};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, Ref, ResponseBuilder};
use utoipa::{OpenApi, PartialSchema, ToSchema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::state::App;
use super::{admin_guard, auth, body, docs, rate_limit};
use crate::api_keys::Scope;

/// Name of the bearer scheme in the description.
const SECURITY_SCHEME_NAME: &str = "api_key";

/// Routes below this are an operator's: web pages are kept out of them.
const ADMIN_ROUTE_PREFIX: &str = "/admin";

/// Routes, each public or with its scope.
pub struct RouteTable {
    router: OpenApiRouter<App>,
    app: App,
}

type DescribedRoutes = UtoipaMethodRouter<App>;

impl RouteTable {
    /// No routes.
    #[must_use]
    pub fn new(app: &App) -> Self {
        Self { router: OpenApiRouter::with_openapi(docs::ApiDescription::openapi()), app: app.clone() }
    }

    /// Routes without a key.
    #[must_use]
    pub fn public(self, described_routes: impl IntoIterator<Item = DescribedRoutes>) -> Self {
        Self { router: described_routes.into_iter().fold(self.router, OpenApiRouter::routes), ..self }
    }

    /// Routes for keys of this scope.
    #[must_use]
    pub fn scoped(mut self, scope: Scope, described_routes: impl IntoIterator<Item = DescribedRoutes>) -> Self {
        for (schemas, mut paths, router) in described_routes {
            add_problems(
                &mut paths,
                &[("401", "No API key, or none that is known"), ("403", "The API key is not good for this")],
            );
            for operation in operations(&mut paths) {
                // The empty one: a server without a key file asks for none.
                let key = SecurityRequirement::new(SECURITY_SCHEME_NAME, [scope.name()]);
                operation.security = Some(vec![SecurityRequirement::default(), key]);
            }
            let mut router = router.layer(from_fn_with_state((self.app.clone(), scope), auth::authorize));
            if paths.paths.keys().any(|path| path.starts_with(ADMIN_ROUTE_PREFIX)) {
                router = router.layer(from_fn_with_state(Arc::clone(&self.app.access.admin_hosts), admin_guard::check));
            }
            self.router = self.router.routes((schemas, paths, router));
        }
        self
    }

    /// Routes that take texts: for keys that may predict.
    #[must_use]
    pub fn predictions(self, described_routes: impl IntoIterator<Item = DescribedRoutes>) -> Self {
        let problems = [
            ("404", "No such model or version"),
            ("422", "A field is missing, unknown or out of its limits"),
            ("503", "Overloaded, or the model is not ready"),
            ("504", "Out of time"),
        ];
        let metrics = Arc::clone(&self.app.telemetry.metrics);
        let described_routes = described_routes.into_iter().inspect(|(_, paths, _)| {
            paths.paths.keys().for_each(|path| metrics.http.add_prediction_route(path));
        });
        self.with_body(Scope::Predict, &problems, described_routes)
    }

    /// A route that takes feedback: for keys with the feedback scope.
    #[must_use]
    pub fn feedback(self, described_routes: DescribedRoutes) -> Self {
        self.with_body(Scope::Feedback, &[], [described_routes])
    }

    /// Routes within the caller's rate, with a body whose head is checked.
    fn with_body(
        self,
        scope: Scope,
        problems: &[(&str, &str)],
        described_routes: impl IntoIterator<Item = DescribedRoutes>,
    ) -> Self {
        let app = self.app.clone();
        let described_routes = described_routes.into_iter().map(|(schemas, mut paths, router)| {
            add_problems(&mut paths, problems);
            add_problems(
                &mut paths,
                &[
                    ("400", "Not JSON, cut short, or a header without a valid value"),
                    ("408", "The body came too slowly"),
                    ("413", "Body over --max-body"),
                    ("415", "Not JSON in UTF-8"),
                    ("429", "More texts than the caller's rate allows"),
                ],
            );
            let router = router
                .layer(from_fn_with_state(app.clone(), body::check_headers))
                .layer(from_fn_with_state(app.clone(), rate_limit::charge_first_text));
            (schemas, paths, router)
        });
        self.scoped(scope, described_routes)
    }

    /// What the routes are, without what all of them have in common.
    #[must_use]
    pub fn description(&self) -> &Document {
        self.router.get_openapi()
    }

    /// The router, with the description of its routes as two more public ones.
    pub fn with_description(self) -> Router<App> {
        let (mut router, mut api) = self.router.split_for_parts();
        // Every route can answer with a problem: the errors that layers make are not repeated at each.
        add_problems(&mut api.paths, &[("default", "Any other problem")]);
        let components = api.components.get_or_insert_default();
        components.schemas.insert(Problem::name().into_owned(), Problem::schema());
        components.add_security_scheme(SECURITY_SCHEME_NAME, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        for (path, method_router) in docs::routes(&api) {
            router = router.route(path, method_router);
        }
        router
    }

    /// The router alone.
    pub fn without_description(self) -> Router<App> {
        self.router.into()
    }
}

fn operations(paths: &mut Paths) -> impl Iterator<Item = &mut Operation> {
    let items = paths.paths.values_mut();
    items.flat_map(|item| [&mut item.get, &mut item.post, &mut item.put, &mut item.delete].into_iter().flatten())
}

fn add_problems(paths: &mut Paths, problems: &[(&str, &str)]) {
    for operation in operations(paths) {
        for (status, description) in problems {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
            let response =
                ResponseBuilder::new().description(*description).content("application/problem+json", content);
            operation.responses.responses.insert((*status).to_owned(), response.build().into());
        }
    }
}
