// Java's own HTTP client, which the SDKs for Java are built on or behave like: it offers HTTP/2 and goes on with 1.1. One try a call of this program.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.List;

public class Ask {
    public static void main(String[] given) throws Exception {
        String body = given[0];
        HttpClient client = HttpClient.newHttpClient();
        HttpRequest.Builder asked = HttpRequest.newBuilder(URI.create(System.getenv("OPENAI_BASE_URL") + "/chat/completions"))
            .header("authorization", "Bearer " + System.getenv("OPENAI_API_KEY"))
            .header("content-type", "application/json");
        for (int call = 0; call < 3; call++) {  // of one connection, kept
            List<String> lines = client.send(asked.POST(BodyPublishers.ofString(body)).build(), BodyHandlers.ofLines()).body().toList();
            lines.forEach(System.out::println);
        }
        client.sendAsync(asked.POST(BodyPublishers.ofString(body)).build(), BodyHandlers.ofString()).thenAccept(answer -> System.out.println(answer.version())).join();
    }
}
