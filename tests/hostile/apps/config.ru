# The app as Rack sees it: puma.
require "json"
require "uri"

run lambda { |env|
  values = ->(key) { env.key?(key) ? [env[key]] : [] }
  path = env["PATH_INFO"].dup.force_encoding("UTF-8")
  seen = {
    method: env["REQUEST_METHOD"],
    path: (URI::DEFAULT_PARSER.unescape(path) rescue path).scrub,
    role: values["HTTP_X_ROLE"],
    identity: values["HTTP_X_FORWARDED_CLIENT_CERT"],
    attempt: env.fetch("HTTP_X_ATTEMPT", ""),
  }
  File.open(ENV["HOSTILE_LOG"], "a") { |log| log.write(JSON.generate(seen) + "\n") }
  [200, { "Content-Length" => "2" }, ["ok"]]
}
