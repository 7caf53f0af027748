# Varnish for bench.beside: keyed on the body with bodyaccess, purged with xkey (both of varnish-modules), with all that its
# documentation offers against what goes wrong. Words between @ are filled in by bench/beside/servers.py.
vcl 4.1;

import bodyaccess;
import directors;
import std;
import xkey;

probe well {
    .url = "/healthz";
    .interval = 500ms;
    .timeout = 500ms;
    .window = 3;
    .threshold = 2;
    .initial = 3;
}

backend near {
    .host = "127.0.0.1";
    .port = "@NEAR@";
    .probe = well;
    .connect_timeout = 5s;
    .first_byte_timeout = @FIRST_BYTE@;
    .between_bytes_timeout = 60s;
}

backend far {
    .host = "127.0.0.1";
    .port = "@FAR@";
    .probe = well;
    .connect_timeout = 5s;
    .first_byte_timeout = @FIRST_BYTE@;
    .between_bytes_timeout = 60s;
}

acl operators {
    "127.0.0.1";
}

sub vcl_init {
    new clusters = directors.fallback();
    clusters.add_backend(near);
    clusters.add_backend(far);
}

sub vcl_recv {
    set req.backend_hint = clusters.backend();
    if (req.method == "PURGE") {
        if (client.ip !~ operators) {
            return (synth(403));
        }
        set req.http.purged = xkey.purge(req.http.xkey-purge);
        return (synth(200, req.http.purged));
    }
    # While a cluster is well, what is past its time is served only while another is fetched.
    if (std.healthy(req.backend_hint)) {
        set req.grace = 10s;
    }
    if (req.method == "POST" && std.cache_req_body(64KB)) {
        return (hash);
    }
    return (pass);
}

sub vcl_hash {
    hash_data(req.url);
    bodyaccess.hash_req_body();
    return (lookup);
}

# What is looked up is fetched with GET unless told otherwise. The second try is the other cluster's.
sub vcl_backend_fetch {
    set bereq.method = "POST";
    if (bereq.retries > 0) {
        set bereq.backend = far;
    }
    return (fetch);
}

sub vcl_backend_response {
    if (beresp.status >= 500 || beresp.status == 429) {
        if (bereq.retries < 1) {
            return (retry);
        }
        # What is past its time stays, and is served.
        if (bereq.is_bgfetch) {
            return (abandon);
        }
    }
    if (beresp.status == 200 && (beresp.http.Content-Type !~ "^audio/" || beresp.http.Content-Length == "0")) {
        return (error(502, "No audio"));
    }
    unset beresp.http.Set-Cookie;
    # What HTTP does not say the end of, and what the cluster says no to, is not stored.
    if (beresp.status != 200 || (!beresp.http.Content-Length && !beresp.http.Transfer-Encoding)
        || beresp.http.Cache-Control ~ "no-store|private") {
        set beresp.uncacheable = true;
        return (deliver);
    }
    set beresp.http.xkey = beresp.http.Surrogate-Key;
    set beresp.ttl = @TTL@;
    set beresp.grace = 7d;
    return (deliver);
}

sub vcl_backend_error {
    if (bereq.retries < 1) {
        return (retry);
    }
    return (deliver);
}

sub vcl_deliver {
    if (obj.hits > 0) {
        set resp.http.X-Cache-Status = "HIT";
    }
    return (deliver);
}
