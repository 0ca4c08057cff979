//! The tables, as diesel sees them: the same in both backends.

diesel::table! {
    installation (name) {
        name -> Text,
        value -> Binary,
    }
}

diesel::table! {
    fleets (name) {
        name -> Text,
        open -> Bool,
        profile -> Text,
        unconfirmed_ttl -> Nullable<BigInt>,
        list_superseded -> Bool,
        list_quarantined -> Bool,
        max_age -> BigInt,
        created_at -> BigInt,
        version -> BigInt,
        blast_radius -> Nullable<BigInt>,
        hook -> Nullable<Text>,
        wave -> Nullable<Text>,
    }
}

diesel::table! {
    authorities (id) {
        id -> BigInt,
        kind -> SmallInt,
        fleet -> Text,
        state -> SmallInt,
        key_label -> Text,
        certificate -> Binary,
        issuer -> Nullable<BigInt>,
        created_at -> BigInt,
    }
}

diesel::table! {
    trust_bundles (number) {
        number -> BigInt,
        made_at -> BigInt,
        signers -> Binary,
        roots -> Binary,
        der -> Binary,
    }
}

diesel::table! {
    epochs (number) {
        number -> BigInt,
        authority -> BigInt,
        opened_at -> BigInt,
        closed_at -> Nullable<BigInt>,
        next_index -> BigInt,
    }
}

diesel::table! {
    leases (id) {
        id -> BigInt,
        length -> BigInt,
        expires_at -> BigInt,
    }
}

diesel::table! {
    subjects (id) {
        id -> BigInt,
        kind -> SmallInt,
        fleet -> Text,
        name -> Text,
        folded -> Text,
        state -> SmallInt,
        role -> Nullable<SmallInt>,
        grants -> Nullable<Text>,
        dns_names -> Text,
        addresses -> Text,
        attributes -> Text,
        last_generation -> BigInt,
        confirmed_generation -> BigInt,
        created_at -> BigInt,
        version -> BigInt,
        group_id -> Nullable<BigInt>,
        permits -> Text,
        moved_from -> Nullable<BigInt>,
    }
}

diesel::table! {
    certificates (id) {
        id -> BigInt,
        serial -> Binary,
        authority -> BigInt,
        subject -> Nullable<BigInt>,
        generation -> BigInt,
        key_hash -> Binary,
        fingerprint -> Binary,
        standing -> SmallInt,
        reason -> Nullable<SmallInt>,
        not_before -> BigInt,
        not_after -> BigInt,
        renew_after -> BigInt,
        confirm_before -> Nullable<BigInt>,
        issued_at -> BigInt,
        changed_at -> BigInt,
        ledger -> Text,
        position -> BigInt,
        token -> Nullable<Binary>,
        der -> Binary,
    }
}

diesel::table! {
    tokens (id) {
        id -> Binary,
        secret_hash -> Binary,
        kind -> SmallInt,
        fleet -> Text,
        subject -> Nullable<BigInt>,
        state -> SmallInt,
        key_hash -> Nullable<Binary>,
        expires_at -> BigInt,
        created_at -> BigInt,
        created_by -> BigInt,
        note -> Text,
        terms -> Text,
        spent -> BigInt,
        origin -> Nullable<BigInt>,
    }
}

diesel::table! {
    ledgers (name) {
        name -> Text,
        origin -> Text,
        key_label -> Text,
        key -> Binary,
        size -> BigInt,
        root -> Binary,
        frontier -> Binary,
    }
}

diesel::table! {
    ledger_entries (ledger, position) {
        ledger -> Text,
        position -> BigInt,
        entry -> Binary,
        details -> Nullable<Binary>,
    }
}

diesel::table! {
    ledger_nodes (ledger, level, place) {
        ledger -> Text,
        level -> SmallInt,
        place -> BigInt,
        hash -> Binary,
    }
}

diesel::table! {
    crls (authority) {
        authority -> BigInt,
        number -> BigInt,
        this_update -> BigInt,
        next_update -> BigInt,
        position -> BigInt,
        der -> Binary,
    }
}

diesel::table! {
    root_requests (id) {
        id -> Text,
        kind -> SmallInt,
        fleet -> Text,
        epoch -> BigInt,
        position -> BigInt,
        csr -> Binary,
        certificate -> Nullable<Binary>,
        asked_at -> BigInt,
    }
}

diesel::table! {
    published_lists (kind, authority, epoch, slice) {
        kind -> SmallInt,
        authority -> BigInt,
        epoch -> BigInt,
        slice -> BigInt,
        number -> BigInt,
        this_update -> BigInt,
        next_update -> BigInt,
        position -> BigInt,
        octets -> Binary,
    }
}

diesel::table! {
    remembered (subject, key) {
        subject -> BigInt,
        key -> Text,
        request_hash -> Binary,
        resource -> Text,
        at -> BigInt,
    }
}

diesel::table! {
    policy_sets (ledger, version) {
        ledger -> Text,
        version -> BigInt,
        text -> Text,
        hash -> Binary,
        note -> Text,
        created_at -> BigInt,
        created_by -> Text,
    }
}

diesel::table! {
    touched (operator, fleet, subject) {
        operator -> BigInt,
        fleet -> Text,
        subject -> BigInt,
        at -> BigInt,
    }
}

diesel::table! {
    policy_activations (ledger, number) {
        ledger -> Text,
        number -> BigInt,
        version -> BigInt,
        activated_at -> BigInt,
        activated_by -> Text,
    }
}

diesel::table! {
    allowances (id) {
        id -> BigInt,
        fleet -> Text,
        operator -> BigInt,
        devices -> BigInt,
        allowed_by -> BigInt,
        allowed_at -> BigInt,
        expires_at -> BigInt,
    }
}

diesel::table! {
    enrollment_groups (id) {
        id -> BigInt,
        fleet -> Text,
        name -> Text,
        folded -> Text,
        proof -> SmallInt,
        state -> SmallInt,
        rules -> Text,
        material -> Binary,
        key_hash -> Nullable<Binary>,
        admitted -> BigInt,
        created_at -> BigInt,
        created_by -> BigInt,
        version -> BigInt,
    }
}

diesel::table! {
    enrollment_serials (group_id, serial) {
        group_id -> BigInt,
        serial -> Text,
        device -> Text,
    }
}

diesel::table! {
    hardware (id) {
        id -> Binary,
        subject -> BigInt,
        source -> SmallInt,
        since -> BigInt,
    }
}

diesel::table! {
    enrollment_requests (id) {
        id -> BigInt,
        fleet -> Text,
        name -> Text,
        folded -> Text,
        key_hash -> Binary,
        state -> SmallInt,
        proof -> Text,
        source -> Text,
        key_type -> Text,
        reason -> Text,
        asked_at -> BigInt,
        decided_at -> Nullable<BigInt>,
        decided_by -> Nullable<BigInt>,
        expires_at -> BigInt,
    }
}

diesel::table! {
    blocked_keys (key_hash) {
        key_hash -> Binary,
        reason -> Text,
        blocked_at -> BigInt,
        blocked_by -> BigInt,
    }
}

diesel::table! {
    touched_minutes (operator, fleet, minute) {
        operator -> BigInt,
        fleet -> Text,
        minute -> BigInt,
        devices -> BigInt,
    }
}

diesel::table! {
    revocations (id) {
        id -> BigInt,
        ledger -> Text,
        state -> SmallInt,
        act -> SmallInt,
        reason -> Nullable<SmallInt>,
        selector -> Text,
        selection -> Text,
        note -> Text,
        ordered_by -> BigInt,
        ordered_at -> BigInt,
        approved_by -> Nullable<BigInt>,
        approved_at -> Nullable<BigInt>,
        cancelled_by -> Nullable<BigInt>,
        runs_at -> BigInt,
        expires_at -> Nullable<BigInt>,
        devices -> BigInt,
        certificates -> BigInt,
        covered -> BigInt,
        sweep -> Bool,
        place -> BigInt,
        changed -> BigInt,
        started_at -> Nullable<BigInt>,
        ended_at -> Nullable<BigInt>,
        failure -> Text,
    }
}

diesel::table! {
    external_authorities (id) {
        id -> BigInt,
        fleet -> Text,
        name -> Text,
        folded -> Text,
        state -> SmallInt,
        stale -> Bool,
        rules -> Text,
        material -> Binary,
        epoch -> Nullable<BigInt>,
        next_index -> BigInt,
        created_at -> BigInt,
        created_by -> BigInt,
        version -> BigInt,
        sighted -> BigInt,
        sighted_hour -> BigInt,
        sighted_within -> BigInt,
    }
}

diesel::table! {
    expected_certificates (fingerprint) {
        fingerprint -> Binary,
        authority -> BigInt,
        device -> Nullable<Text>,
        expected_at -> BigInt,
    }
}

diesel::table! {
    external_certificates (fingerprint) {
        fingerprint -> Binary,
        certificate -> BigInt,
        authority -> BigInt,
        issuer -> Binary,
        serial -> Binary,
        key_hash -> Binary,
        own_standing -> SmallInt,
        own_reason -> Nullable<SmallInt>,
        foreign_standing -> SmallInt,
        foreign_reason -> Nullable<SmallInt>,
        not_after -> BigInt,
        next_update -> Nullable<BigInt>,
    }
}

diesel::table! {
    foreign_lists (authority, url) {
        authority -> BigInt,
        url -> Text,
        issuer -> Binary,
        number -> Binary,
        this_update -> BigInt,
        next_update -> BigInt,
        etag -> Text,
        modified -> Text,
        fetched_at -> BigInt,
        der -> Binary,
    }
}

// Certificates are looked for by their subject's kind.
diesel::allow_tables_to_appear_in_same_query!(certificates, subjects);
