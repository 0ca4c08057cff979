//! OCSP goes past the application. It is what a public door is asked for most often, and one answer costs hardly more than its
//! signature: routing, extractors and middleware took some 4 % beside it (`scripts/bench --standing`). What [`watch`] does around a
//! request is done here too.
//!
//! [`watch`]: crate::http::watch::watch

use std::borrow::Cow;

use actix_http::Request;
use actix_service::IntoServiceFactory;
use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{AppConfig, Response, Service, ServiceFactory, ServiceResponse, forward_ready};
use actix_web::web::Data;
use fleetmark_domain::Refusal;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use super::ocsp;
use crate::http::State;
use crate::http::problem::Problem;
use crate::http::watch::Watched;

/// A door's application, and before it the lane, where the door has one.
pub struct Lane<A> {
    app: A,
    state: Option<Data<State>>,
}

/// `app`, and before it OCSP by `state` if there is one.
pub fn before<A>(app: impl IntoServiceFactory<A, Request>, state: Option<Data<State>>) -> Lane<A>
where
    A: ServiceFactory<Request>,
{
    Lane { app: app.into_factory(), state }
}

impl<A> ServiceFactory<Request> for Lane<A>
where
    A: ServiceFactory<Request, Config = AppConfig, Response = ServiceResponse<BoxBody>, Error = Error>,
    A::Future: 'static,
    <A::Service as Service<Request>>::Future: 'static,
{
    type Response = Response<BoxBody>;
    type Error = Error;
    type Config = AppConfig;
    type Service = Lane<A::Service>;
    type InitError = A::InitError;
    type Future = LocalBoxFuture<'static, Result<Self::Service, Self::InitError>>;

    fn new_service(&self, config: AppConfig) -> Self::Future {
        let (app, state) = (self.app.new_service(config), self.state.clone());
        async move { Ok(Lane { app: app.await?, state }) }.boxed_local()
    }
}

impl<A> Service<Request> for Lane<A>
where
    A: Service<Request, Response = ServiceResponse<BoxBody>, Error = Error>,
    A::Future: 'static,
{
    type Response = Response<BoxBody>;
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self::Response, Error>>;

    forward_ready!(app);

    fn call(&self, request: Request) -> Self::Future {
        match self.state.as_ref().zip(ocsp::route(request.head())) {
            Some((state, route)) => answer(state.clone(), route, request).boxed_local(),
            None => self.app.call(request).map(|answered| answered.map(Response::from)).boxed_local(),
        }
    }
}

async fn answer(state: Data<State>, route: &'static str, mut request: Request) -> Result<Response<BoxBody>, Error> {
    let watched = Watched::begin("public", request.head());
    let mut payload = request.take_payload();
    let answered = watched.catch(ocsp::answer(&state, &request, &mut payload)).await;
    let mut response = answered.ok_or_else(|| Problem::from(Refusal::InternalError))?;
    let status = response.status();
    watched.end(Cow::Borrowed(route), status, response.headers_mut());
    Ok(response.into())
}
