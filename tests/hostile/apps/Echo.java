// The app on the JDK's own server: `java Echo.java PORT`.
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;
import java.util.concurrent.Executors;
import java.util.stream.Collectors;

public class Echo {
    static String quoted(String text) {
        StringBuilder built = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            built.append(c < ' ' || c == '"' || c == '\\' || c > '~' ? String.format("\\u%04x", (int) c) : String.valueOf(c));
        }
        return built.append('"').toString();
    }

    static String values(HttpExchange exchange, String name) {
        List<String> found = exchange.getRequestHeaders().getOrDefault(name, List.of());
        return found.stream().map(Echo::quoted).collect(Collectors.joining(",", "[", "]"));
    }

    static void answer(HttpExchange exchange) throws java.io.IOException {
        String path = exchange.getRequestURI().getPath();
        String attempt = exchange.getRequestHeaders().getFirst("X-Attempt");
        String line = String.format("{\"method\":%s,\"path\":%s,\"role\":%s,\"identity\":%s,\"attempt\":%s}\n",
            quoted(exchange.getRequestMethod()), quoted(path == null ? "" : path), values(exchange, "X-Role"),
            values(exchange, "X-Forwarded-Client-Cert"), quoted(attempt == null ? "" : attempt));
        Path log = Path.of(System.getenv("HOSTILE_LOG"));
        Files.write(log, line.getBytes(StandardCharsets.UTF_8), StandardOpenOption.APPEND);
        boolean head = exchange.getRequestMethod().equals("HEAD");
        exchange.sendResponseHeaders(200, head ? -1 : 2);
        if (!head) {
            exchange.getResponseBody().write("ok".getBytes());
        }
        exchange.close();
    }

    public static void main(String[] arguments) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 0);
        server.createContext("/", Echo::answer);
        server.setExecutor(Executors.newCachedThreadPool());
        server.start();
    }
}
