//! The rows of the table of routes (contract §2).

use super::{Access, BodyRule, Eds, Open, Operation, Platform, Route};
use crate::errors::Code;

/// The EDS API stands under both.
pub(crate) const PREFIXES: &[&str] = &["/api/v1", "/eds/api/v1"];

const READ: Access = Access::Scope("eds.read");
const WRITE: Access = Access::Scope("eds.write");
const PUBLISH: Access = Access::Scope("eds.publish");
const ADMIN: Access = Access::Scope("admin");

const GET: &[&str] = &["GET"];
const POST: &[&str] = &["POST"];
const PUT: &[&str] = &["PUT"];
const DELETE: &[&str] = &["DELETE"];
const PUT_OR_POST: &[&str] = &["PUT", "POST"];
const PUT_OR_PATCH: &[&str] = &["PUT", "PATCH"];

const fn route(
    operation: Operation,
    methods: &'static [&'static str],
    path: &'static str,
    access: Access,
    summary: &'static str,
) -> Route {
    Route {
        operation,
        methods,
        path,
        access,
        body: BodyRule::None,
        summary,
        query: &[],
        request: "",
        response: "",
        status: 200,
        errors: &[],
    }
}

const fn open(operation: Open, path: &'static str, summary: &'static str) -> Route {
    route(Operation::Open(operation), GET, path, Access::Open, summary)
}

const fn eds(
    operation: Eds,
    methods: &'static [&'static str],
    path: &'static str,
    access: Access,
    summary: &'static str,
) -> Route {
    route(Operation::Eds(operation), methods, path, access, summary)
}

const fn admin(
    operation: Platform,
    methods: &'static [&'static str],
    path: &'static str,
    summary: &'static str,
) -> Route {
    route(Operation::Platform(operation), methods, path, ADMIN, summary)
}

impl Route {
    const fn takes(self, request: &'static str) -> Self {
        Self { body: BodyRule::Json, request, ..self }
    }

    const fn takes_as(self, body: BodyRule, request: &'static str) -> Self {
        Self { body, request, ..self }
    }

    const fn gives(self, response: &'static str) -> Self {
        Self { response, ..self }
    }

    const fn answers(self, status: u16, response: &'static str) -> Self {
        Self { status, response, ..self }
    }

    const fn query(self, query: &'static [&'static str]) -> Self {
        Self { query, ..self }
    }

    const fn fails(self, errors: &'static [Code]) -> Self {
        Self { errors, ..self }
    }
}

const UNKNOWN: &[Code] = &[Code::InvalidWebhookId, Code::WebhookNotRegistered];
const CREATE_WEBHOOK: &[Code] = &[
    Code::InvalidRequestBody,
    Code::EmptyEventcodes,
    Code::InvalidEventcode,
    Code::DuplicateEventInEventArray,
    Code::EventcodeNotfound,
    Code::InvalidUrl,
    Code::InvalidCustomHeader,
    Code::InvalidTlsIdentity,
    Code::InvalidAuthentication,
    Code::ExceedsMaximumCustomHeaderLimit,
    Code::InvalidStatus,
    Code::ProductNotValid,
    Code::DuplicateWebhook,
    Code::WebhookNotRegistered,
    Code::IdempotencyKeyReused,
    Code::InvalidIdempotencyKey,
];
const UPDATE_WEBHOOK: &[Code] = &[
    Code::InvalidRequestBody,
    Code::EmptyEventcodes,
    Code::InvalidEventcode,
    Code::DuplicateEventInEventArray,
    Code::EventcodeNotfound,
    Code::InvalidUrl,
    Code::InvalidCustomHeader,
    Code::InvalidTlsIdentity,
    Code::InvalidAuthentication,
    Code::ExceedsMaximumCustomHeaderLimit,
    Code::InvalidStatus,
    Code::ProductNotValid,
    Code::DuplicateWebhook,
    Code::InvalidWebhookId,
    Code::WebhookNotRegistered,
    Code::PreconditionFailed,
];
const CREATE_HOOK: &[Code] = &[
    Code::InvalidRequestBody,
    Code::EmptyEventcodes,
    Code::InvalidEventcode,
    Code::DuplicateEventInEventArray,
    Code::EventcodeNotfound,
    Code::InvalidUrl,
    Code::InvalidStatus,
    Code::WebhookNotRegistered,
    Code::IdempotencyKeyReused,
    Code::InvalidIdempotencyKey,
];
const UPDATE_HOOK: &[Code] = &[
    Code::InvalidRequestBody,
    Code::EmptyEventcodes,
    Code::InvalidEventcode,
    Code::DuplicateEventInEventArray,
    Code::EventcodeNotfound,
    Code::InvalidUrl,
    Code::InvalidStatus,
    Code::InvalidWebhookId,
    Code::WebhookNotRegistered,
    Code::PreconditionFailed,
];
const SUBSCRIBE: &[Code] = &[
    Code::InvalidRequestBody,
    Code::EmptyEventcodes,
    Code::InvalidEventcode,
    Code::DuplicateEventcode,
    Code::EventcodeNotfound,
    Code::EventcodeNotSubscribed,
    Code::SubscribedEventcode,
    Code::InvalidWebhookId,
    Code::WebhookNotRegistered,
    Code::PreconditionFailed,
];
const BY_TYPE: &[Code] = &[
    Code::NotificationNotfound,
    Code::InvalidWebhookId,
    Code::WebhookNotRegistered,
    Code::InvalidEventcode,
    Code::EventcodeNotfound,
    Code::InvalidDate,
    Code::FutureDate,
    Code::InvalidCount,
    Code::InvalidCursor,
    Code::NotificationBulkGetLimitExceeded,
    Code::UnableToRead,
];
const BY_ID: &[Code] = &[
    Code::InvalidWebhookId,
    Code::WebhookNotRegistered,
    Code::InvalidRequestBody,
    Code::InvalidNotificationId,
    Code::IsRequiredNotificationId,
    Code::DuplicateNotificationId,
    Code::NotificationBulkGetLimitExceeded,
    Code::NotificationNotfound,
    Code::UnableToRead,
];
const UNDELIVERED: &[Code] = &[
    Code::UndeliveredNotificationsNotfound,
    Code::InvalidCursor,
    Code::InvalidWebhookId,
    Code::WebhookNotRegistered,
    Code::InvalidDate,
    Code::FutureDate,
    Code::UnableToRead,
];
const RESEND: &[Code] = &[
    Code::InvalidWebhookId,
    Code::WebhookNotRegistered,
    Code::InvalidRequestBody,
    Code::InvalidNotificationId,
    Code::IsRequiredNotificationId,
    Code::DuplicateNotificationId,
    Code::NotificationResendLimitExceeded,
    Code::RateLimited,
    Code::WebhookIsNotActive,
    Code::IdempotencyKeyReused,
    Code::InvalidIdempotencyKey,
    Code::UnableToRead,
];
const ATTEMPTS: &[Code] = &[
    Code::InvalidWebhookId,
    Code::WebhookNotRegistered,
    Code::InvalidNotificationId,
    Code::NotificationNotfound,
    Code::UnableToRead,
];
const ROTATE: &[Code] = &[
    Code::InvalidWebhookId,
    Code::WebhookNotRegistered,
    Code::InvalidRequestBody,
    Code::PreconditionFailed,
];
const HEARTBEAT: &[Code] = &[Code::InvalidWebhookId, Code::WebhookNotRegistered];
const BAD_EVENTS: &[Code] = &[
    Code::BadJson,
    Code::BadUtf8,
    Code::BadField,
    Code::UnknownEvent,
    Code::DuplicateKey,
    Code::TooDeep,
    Code::TooLarge,
    Code::BadTenant,
    Code::BadHeader,
    Code::ForbiddenData,
    Code::Empty,
];

/// Every route. A fixed word comes before a parameter at the same place.
pub(crate) const ROUTES: &[Route] = &[
    open(Open::Health, "/healthz", "Says that the process lives").gives("Probe"),
    open(Open::Ready, "/readyz", "Says whether requests can be answered").gives("Probe"),
    open(Open::Metrics, "/metrics", "Metrics in the Prometheus text format").gives("Metrics"),
    open(Open::Describe, "/openapi.json", "This description").gives("Anything"),
    open(Open::Keys, "/.well-known/jwks.json", "The public keys of the signature v1a (RFC 7517)")
        .gives("KeySet"),
    route(
        Operation::Platform(Platform::Ingest),
        POST,
        "/ingest/v1/events",
        PUBLISH,
        "Publishes one event, or up to 1,000 as JSON lines",
    )
    .takes_as(BodyRule::Events, "Event")
    .answers(202, "Published")
    .fails(BAD_EVENTS),
    admin(
        Platform::ApplyTenants,
        PUT,
        "/admin/v1/tenants",
        "Adds and changes issuers, programme managers, products and merchants",
    )
    .takes_as(BodyRule::LargeJson, "Tenants")
    .query(&["prune"])
    .gives("TenantsApplied")
    .fails(&[Code::InvalidRequestBody]),
    admin(Platform::CreateHook, POST, "/admin/v1/hooks", "Registers a hook")
        .takes("HookCreate")
        .answers(201, "Hook")
        .fails(CREATE_HOOK),
    admin(Platform::ListHooks, GET, "/admin/v1/hooks", "Lists the hooks")
        .query(&["merchant", "limit", "cursor"])
        .gives("HookList")
        .fails(&[Code::InvalidCount, Code::InvalidCursor]),
    admin(Platform::GetHook, GET, "/admin/v1/hooks/{hookId}", "Reads a hook")
        .gives("Hook")
        .fails(UNKNOWN),
    admin(Platform::UpdateHook, PUT, "/admin/v1/hooks/{hookId}", "Replaces a hook")
        .takes("HookUpdate")
        .gives("Hook")
        .fails(UPDATE_HOOK),
    admin(Platform::DeleteHook, DELETE, "/admin/v1/hooks/{hookId}", "Deletes a hook")
        .answers(204, "")
        .fails(&[Code::InvalidWebhookId, Code::WebhookNotRegistered, Code::PreconditionFailed]),
    admin(
        Platform::HookNotificationsByType,
        GET,
        "/admin/v1/hooks/{hookId}/events/{name}/notifications",
        "Lists a hook's notifications of one event type",
    )
    .query(&["from", "count", "cursor"])
    .gives("HookNotifications")
    .fails(BY_TYPE),
    admin(
        Platform::HookUndelivered,
        GET,
        "/admin/v1/hooks/{hookId}/notifications/undelivered",
        "Lists what a hook did not get",
    )
    .query(&["from", "cursor"])
    .gives("HookUndelivered")
    .fails(UNDELIVERED),
    admin(
        Platform::HookNotifications,
        PUT_OR_POST,
        "/admin/v1/hooks/{hookId}/notifications",
        "Reads a hook's notifications by id",
    )
    .takes("NotificationIds")
    .gives("HookNotifications")
    .fails(BY_ID),
    admin(
        Platform::HookResend,
        POST,
        "/admin/v1/hooks/{hookId}/resend",
        "Sends a hook's notifications again",
    )
    .takes("ResendIds")
    .gives("Resent")
    .fails(RESEND),
    admin(
        Platform::HookAttempts,
        GET,
        "/admin/v1/hooks/{hookId}/notifications/{notificationId}/attempts",
        "Lists the attempts of a hook's notification",
    )
    .gives("Attempts")
    .fails(ATTEMPTS),
    admin(
        Platform::FraudResponses,
        GET,
        "/admin/v1/fraud-responses",
        "Lists the answers to fraud alerts, for a card processor without Kafka",
    )
    .query(&["after", "limit"])
    .gives("FraudResponses")
    .fails(&[Code::InvalidCursor, Code::InvalidCount]),
    admin(
        Platform::CreatePause,
        POST,
        "/admin/v1/pauses",
        "Stops a webhook, a tenant, an event type or everything: it is recorded and waits",
    )
    .takes("PauseSave")
    .answers(201, "Pause")
    .fails(&[Code::InvalidRequestBody]),
    admin(Platform::ListPauses, GET, "/admin/v1/pauses", "Lists what is stopped, and why")
        .gives("PauseList"),
    admin(
        Platform::DeletePause,
        DELETE,
        "/admin/v1/pauses/{pauseId}",
        "Lets what was stopped go on",
    )
    .answers(204, "")
    .fails(&[Code::NotFound]),
    admin(Platform::Account, GET, "/admin/v1/account", "Accounts for every source record")
        .query(&["topic"])
        .gives("Account")
        .fails(&[Code::NotFound, Code::UnableToRead]),
    admin(
        Platform::Explain,
        GET,
        "/admin/v1/explain",
        "The whole life of an event: decisions, attempts, resends",
    )
    .query(&["what"])
    .gives("Explained")
    .fails(&[Code::InvalidRequestBody, Code::NotFound, Code::UnableToRead]),
    admin(
        Platform::ListQuarantine,
        GET,
        "/admin/v1/quarantine",
        "Lists the records that were set aside",
    )
    .query(&["limit", "cursor"])
    .gives("QuarantineList")
    .fails(&[Code::InvalidCount, Code::InvalidCursor]),
    admin(
        Platform::ShowQuarantine,
        GET,
        "/admin/v1/quarantine/{id}",
        "Reads a record that was set aside",
    )
    .gives("QuarantineShow"),
    admin(
        Platform::Redrive,
        POST,
        "/admin/v1/quarantine/{id}/redrive",
        "Publishes a record that was set aside again, with another body if one is sent",
    )
    .takes_as(BodyRule::OptionalJson, "Anything")
    .gives("Redriven")
    .fails(&[Code::InvalidRequestBody]),
    route(
        Operation::Platform(Platform::Raw),
        POST,
        "/admin/v1/raw/{topic}",
        Access::Dev("admin"),
        "Writes lines unchecked to an event topic (--dev only)",
    )
    .takes_as(BodyRule::Events, "Anything")
    .answers(202, "Published"),
    eds(Eds::CreateWebhook, POST, "/Webhooks", WRITE, "Registers a webhook")
        .takes("WebhookCreate")
        .answers(201, "WebhookCreated")
        .fails(CREATE_WEBHOOK),
    eds(Eds::ListWebhooks, GET, "/Webhooks", READ, "Lists the webhooks")
        .query(&["productId", "status", "limit", "cursor"])
        .gives("WebhookList")
        .fails(&[
            Code::InvalidStatus,
            Code::InvalidCount,
            Code::InvalidCursor,
            Code::ProductNotValid,
            Code::WebhookDetailsNotfound,
        ]),
    eds(Eds::GetWebhook, GET, "/Webhooks/{webhookId}", READ, "Reads a webhook")
        .gives("Webhook")
        .fails(UNKNOWN),
    eds(Eds::UpdateWebhook, PUT, "/Webhooks/{webhookId}", WRITE, "Replaces a webhook")
        .takes("WebhookUpdate")
        .gives("Webhook")
        .fails(UPDATE_WEBHOOK),
    eds(
        Eds::DeleteWebhook,
        DELETE,
        "/Webhooks/{webhookId}",
        WRITE,
        "Deletes a webhook; what is queued for it is cancelled",
    )
    .answers(204, "")
    .fails(&[Code::InvalidWebhookId, Code::WebhookNotRegistered, Code::PreconditionFailed]),
    eds(
        Eds::SetStatus,
        PUT_OR_PATCH,
        "/Webhooks/{webhookId}/status",
        WRITE,
        "Activates or deactivates a webhook",
    )
    .takes("Status")
    .gives("Webhook")
    .fails(&[
        Code::InvalidWebhookId,
        Code::WebhookNotRegistered,
        Code::InvalidRequestBody,
        Code::InvalidStatus,
        Code::CurrentStatusIsSame,
        Code::PreconditionFailed,
    ]),
    eds(
        Eds::ListSubscriptions,
        GET,
        "/Webhooks/{webhookId}/subscriptions",
        READ,
        "Lists the events that a webhook gets",
    )
    .gives("Subscriptions")
    .fails(UNKNOWN),
    eds(
        Eds::AddSubscriptions,
        PUT_OR_POST,
        "/Webhooks/{webhookId}/subscriptions",
        WRITE,
        "Adds events; all or none",
    )
    .takes("Subscribe")
    .gives("Subscribed")
    .fails(SUBSCRIBE),
    eds(
        Eds::RemoveSubscriptions,
        DELETE,
        "/Webhooks/{webhookId}/subscriptions",
        WRITE,
        "Removes events; all or none",
    )
    .takes("Subscribe")
    .gives("Subscribed")
    .fails(SUBSCRIBE),
    eds(
        Eds::RemoveSubscription,
        DELETE,
        "/Webhooks/{webhookId}/subscriptions/{eventCode}",
        WRITE,
        "Removes one event",
    )
    .gives("Subscribed")
    .fails(SUBSCRIBE),
    eds(
        Eds::NotificationsByCode,
        GET,
        "/Webhooks/{webhookId}/events/{eventCode}/notifications",
        READ,
        "Lists a webhook's notifications of one event code",
    )
    .query(&["from", "count", "cursor"])
    .gives("Notifications")
    .fails(BY_TYPE),
    eds(
        Eds::Undelivered,
        GET,
        "/Webhooks/{webhookId}/notifications/undelivered",
        READ,
        "Lists what a webhook did not get",
    )
    .query(&["from", "cursor"])
    .gives("UndeliveredList")
    .fails(UNDELIVERED),
    eds(
        Eds::Notifications,
        PUT_OR_POST,
        "/Webhooks/{webhookId}/notifications",
        READ,
        "Reads notifications by id",
    )
    .takes("NotificationIds")
    .gives("Notifications")
    .fails(BY_ID),
    eds(Eds::Resend, POST, "/Webhooks/{webhookId}/resend", WRITE, "Sends notifications again")
        .takes("ResendIds")
        .gives("Resent")
        .fails(RESEND),
    eds(
        Eds::Attempts,
        GET,
        "/Webhooks/{webhookId}/notifications/{notificationId}/attempts",
        READ,
        "Lists the attempts of a notification",
    )
    .gives("Attempts")
    .fails(ATTEMPTS),
    eds(
        Eds::RotateSecret,
        POST,
        "/Webhooks/{webhookId}/signingSecret/rotate",
        WRITE,
        "Makes a new signing secret; the older ones go on signing for graceHours",
    )
    .takes_as(BodyRule::OptionalJson, "Rotate")
    .gives("WebhookRotated")
    .fails(ROTATE),
    eds(
        Eds::Heartbeat,
        GET,
        "/Webhooks/{webhookId}/heartbeat",
        WRITE,
        "Sends one test request to the endpoint; once in ten seconds",
    )
    .gives("Heartbeat")
    .fails(HEARTBEAT),
    eds(Eds::Ping, GET, "/Webhooks/{webhookId}/ping", WRITE, "The same as heartbeat")
        .gives("Heartbeat")
        .fails(HEARTBEAT),
    eds(
        Eds::EgressAddresses,
        GET,
        "/egress/addresses",
        READ,
        "Lists the addresses that requests come from, by region",
    )
    .gives("EgressAddresses"),
    eds(Eds::AnswerFraudAlert, POST, "/fraudalertresponse", WRITE, "Answers a fraud alert (101)")
        .takes("FraudAnswer")
        .gives("FraudAnswered")
        .fails(&[
            Code::InvalidRequestBody,
            Code::InvalidFraudAlertId,
            Code::InvalidNotificationId,
            Code::InvalidFraudResponse,
            Code::FraudAlertNotfound,
            Code::FraudAlertExpired,
            Code::FraudResponseConflict,
            Code::UnableToRead,
        ]),
    eds(
        Eds::CreateConfiguration,
        POST,
        "/Configs",
        WRITE,
        "Sets which transaction confirmations (112) are sent",
    )
    .takes("ConfigurationCreate")
    .answers(201, "ConfigurationCreated")
    .fails(&[
        Code::InvalidRequestBody,
        Code::InvalidStatus,
        Code::InvalidMessageTypeFilter,
        Code::ProductNotValid,
        Code::DuplicateConfiguration,
        Code::IdempotencyKeyReused,
        Code::InvalidIdempotencyKey,
    ]),
    eds(Eds::ListConfigurations, GET, "/Configs", READ, "Lists the configurations of 112")
        .query(&["limit", "cursor"])
        .gives("ConfigurationList")
        .fails(&[Code::InvalidCount, Code::InvalidCursor]),
    eds(Eds::GetConfiguration, GET, "/Configs/{configId}", READ, "Reads a configuration of 112")
        .gives("Configuration")
        .fails(&[Code::ConfigNotFound]),
    eds(
        Eds::UpdateConfiguration,
        PUT,
        "/Configs/{configId}",
        WRITE,
        "Replaces status and filter of a configuration of 112",
    )
    .takes("ConfigurationUpdate")
    .gives("Configuration")
    .fails(&[
        Code::InvalidRequestBody,
        Code::InvalidStatus,
        Code::InvalidMessageTypeFilter,
        Code::ConfigNotFound,
        Code::PreconditionFailed,
    ]),
];
