# Varnish keyed on the body with bodyaccess (varnish-modules). Words between @ are filled in by bench/contenders.py, which
# also says the parameters that varnishd is started with.
vcl 4.1;

import std;
import bodyaccess;

backend cluster {
    .host = "127.0.0.1";
    .port = "@CLUSTER@";
}

sub vcl_recv {
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

# What is looked up is fetched with GET unless told otherwise.
sub vcl_backend_fetch {
    set bereq.method = "POST";
    return (fetch);
}

sub vcl_backend_response {
    set beresp.ttl = 24h;
    return (deliver);
}

sub vcl_deliver {
    if (obj.hits > 0) {
        set resp.http.X-Cache-Status = "HIT";
    }
    return (deliver);
}
