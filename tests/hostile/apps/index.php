<?php // The app on PHP's own server: `php -S 127.0.0.1:PORT index.php`.
$value = fn($key) => isset($_SERVER[$key]) ? [$_SERVER[$key]] : [];
$seen = [
    "method" => $_SERVER["REQUEST_METHOD"],
    "path" => rawurldecode(strtok($_SERVER["REQUEST_URI"], "?")),
    "role" => $value("HTTP_X_ROLE"),
    "identity" => $value("HTTP_X_FORWARDED_CLIENT_CERT"),
    "attempt" => $_SERVER["HTTP_X_ATTEMPT"] ?? "",
];
$line = json_encode($seen, JSON_INVALID_UTF8_SUBSTITUTE) . "\n";
file_put_contents(getenv("HOSTILE_LOG"), $line, FILE_APPEND);
header("Content-Length: 2");
echo "ok";
