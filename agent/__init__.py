"""The running sidecar, one per workload: the loud room, which fetches, listens, waits and relays.

How it fits together. What stands lower may import what stands higher, seldom the other way round.

    values, read from text; no effects
        durations  values  exits  patterns                small readings
        arguments  options  settings  told                what the command line and the file say
        registration  proxy_config  placement             what Consul says we are
        upstream_config  upstream_tables
        upstream_limits  registered_upstreams             whom our app wants to reach
        intention_answer  intentions  narrowing           who may call us
        permissions  request_rules  request_target        ... and with which HTTP requests
        deny_list  outgoing  verdicts                     what else decides
        explanation  findings  inquiry                    words for all that

    what Consul says, fetched and kept
        http1  transport  consul  consul_access           one exchange; the API as typed calls
        watch  pieces                                     the one loop behind every watch
        feeds  endpoint_feeds  own_watches                what is watched by it
        latest  ageing  clock_skew  churn                 the newest value, and how good it still is
        rotation  roots_first                             roots and leaf become one generation
        self_registration  deny_file                      what we tell Consul; what needs no Consul

    one connection
        binding  listener  listeners  systemd             a caller is let in
        handshake  inbound  outbound  handlers            who it is, and what is done with it
        upstream_listeners                                where our app calls
        search  targets  legs                             somebody who serves it is found, and dialled
        warm  warm_pool  warm_use  warm_log  warmth       ... or was before anybody asked
        relay  pump  splice                               its bytes
        proxy_protocol                                    what the app is told of the caller
        judge                                             verdicts while it lives

    one HTTP request
        http_front  http_call  http_exchange  http_body   read, judged, passed on, answered
        request_head  request_headers                     what is read strictly, and what goes on
        http_answers  plain_answer  odd_answer            our answers, and the app's
        chunks                                            a body in pieces, either way
        http_streams  app_connection                      the two legs

    what is told
        ledger  particulars  connection_log               connections, live and ended
        log  watch_journal  journal  flood  sink          lines for the operator
        admin  routes  status  metrics  exposition        the admin endpoint
        credential_status  upstream_status  readiness  answering   what it says

    one agent
        run  starting  parts  lifecycle  following        from settings to the end
        one_openssl  heap                                 its memory
        workers  worker_process  worker_link  board       more than one process: the control process,
        channel  snapshots  shared_listeners  crew        what it hands over,
        worker  handed_feeds  worker_reports              and who takes it

    the commands
        console  check  clients  explain  doctor  doctor_consul  doctor_upstreams

Three modules begin with a theory of operation: `relay`, `handshake`, `watch`.
"""

VERSION = "0.1.0"  # a constant: asking the package metadata for it costs the agent two megabytes
