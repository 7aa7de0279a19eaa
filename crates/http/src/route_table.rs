//! How routes are listed: with who may use them, or not at all.
//!
//! A router of axum can be made of [`RouteTable`] only, and every way to add a route to it says
//! whether the route is public or which scope it needs: a route without that does not compile.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, PathItem, Ref, ResponseBuilder};
use utoipa::{OpenApi, PartialSchema, ToSchema};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::error::Problem;
use super::state::App;
use super::{admin_guard, auth, body, docs, rate_limit};
use crate::api_keys::Scope;

/// Name of the bearer scheme in the description.
const SECURITY_SCHEME_NAME: &str = "api_key";

/// Routes below this are an operator's: web pages are kept out of them.
const ADMIN_ROUTE_PREFIX: &str = "/admin";

/// Routes, each with who may use it.
pub struct RouteTable {
    router: OpenApiRouter<Arc<App>>,
    app: Arc<App>,
}

type DescribedRoutes = UtoipaMethodRouter<Arc<App>>;

impl RouteTable {
    /// No routes.
    #[must_use]
    pub fn new(app: &Arc<App>) -> Self {
        Self { router: OpenApiRouter::with_openapi(docs::ApiDescription::openapi()), app: Arc::clone(app) }
    }

    /// A route without a key.
    #[must_use]
    pub fn public(self, (schemas, mut paths, router): DescribedRoutes) -> Self {
        paths.paths.values_mut().flat_map(operations).for_each(add_default_problem);
        Self { router: self.router.routes((schemas, paths, router)), app: self.app }
    }

    /// A route for keys of this scope.
    #[must_use]
    pub fn scoped(self, scope: Scope, (schemas, mut paths, router): DescribedRoutes) -> Self {
        for operation in paths.paths.values_mut().flat_map(operations) {
            add_default_problem(operation);
            add_problem_response(operation, "401", "No API key, or none that is known");
            add_problem_response(operation, "403", "The API key is not good for this");
            // The empty one: a server without a key file asks for none.
            let key = SecurityRequirement::new(SECURITY_SCHEME_NAME, [scope.name()]);
            operation.security = Some(vec![SecurityRequirement::default(), key]);
        }
        let mut router = router.layer(from_fn_with_state((Arc::clone(&self.app), scope), auth::authorize));
        if paths.paths.keys().any(|path| path.starts_with(ADMIN_ROUTE_PREFIX)) {
            router = router.layer(from_fn_with_state(Arc::clone(&self.app.access.admin_hosts), admin_guard::check));
        }
        Self { router: self.router.routes((schemas, paths, router)), app: self.app }
    }

    /// A route that takes texts: for keys that may predict.
    #[must_use]
    pub fn predictions(self, listed: DescribedRoutes) -> Self {
        self.with_body(Scope::Predict, listed)
    }

    /// A route that takes feedback: for keys with the feedback scope.
    #[must_use]
    pub fn feedback(self, listed: DescribedRoutes) -> Self {
        self.with_body(Scope::Feedback, listed)
    }

    /// A route within the caller's rate, with a body whose head is checked.
    fn with_body(self, scope: Scope, (schemas, mut paths, router): DescribedRoutes) -> Self {
        for operation in paths.paths.values_mut().flat_map(operations) {
            add_problem_response(operation, "408", "The body came too slowly");
            add_problem_response(operation, "429", "More texts than the caller's rate allows");
        }
        let router = router
            .layer(from_fn_with_state(Arc::clone(&self.app), body::check_headers))
            .layer(from_fn_with_state(Arc::clone(&self.app), rate_limit::charge_first_text));
        self.scoped(scope, (schemas, paths, router))
    }

    /// Method and path of every route.
    #[must_use]
    pub fn methods_and_paths(&self) -> Vec<(&'static str, String)> {
        let paths = self.router.get_openapi().paths.paths.iter();
        let of_path = |(path, item): (&String, &PathItem)| {
            let methods = [("GET", &item.get), ("POST", &item.post), ("PUT", &item.put), ("DELETE", &item.delete)];
            let there = methods.into_iter().filter(|(_, operation)| operation.is_some());
            there.map(|(method, _)| (method, path.clone())).collect::<Vec<_>>()
        };
        paths.flat_map(of_path).collect()
    }

    /// The router, with the description of its routes as two more public ones.
    pub fn with_description(self) -> Router<Arc<App>> {
        let (mut router, mut api) = self.router.split_for_parts();
        add_components(&mut api);
        for (path, method_router) in docs::routes(&api) {
            router = router.route(path, method_router);
        }
        router
    }

    /// The router alone.
    pub fn without_description(self) -> Router<Arc<App>> {
        self.router.split_for_parts().0
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.delete].into_iter().flatten()
}

/// Every route can answer with a problem: the errors that layers make are not repeated at each.
fn add_default_problem(operation: &mut Operation) {
    add_problem_response(operation, "default", "Any other problem");
}

fn add_problem_response(operation: &mut Operation, status: &str, description: &str) {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
    let response = ResponseBuilder::new().description(description).content("application/problem+json", content);
    operation.responses.responses.insert(status.to_owned(), response.build().into());
}

fn add_components(api: &mut Document) {
    let components = api.components.get_or_insert_default();
    components.schemas.insert(Problem::name().into_owned(), Problem::schema());
    components.add_security_scheme(SECURITY_SCHEME_NAME, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
}
