// What a person does with Kafka's own tools, one command a run:
//
//   ADDRESS topic NAME PARTITIONS [SETTING=VALUE]...
//   ADDRESS set NAME SETTING=VALUE...

import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.config.ConfigResource;

public final class Client {
    public static void main(String[] all) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", all[0]);
        String command = all[1];
        List<String> rest = List.of(all).subList(2, all.length);
        try (Admin admin = Admin.create(settings)) {
            switch (command) {
                case "topic" -> topic(admin, rest);
                case "set" -> set(admin, rest);
                default -> throw new IllegalArgumentException(command);
            }
        }
    }

    private static Map<String, String> pairs(Collection<String> of) {
        Map<String, String> found = new HashMap<>();
        for (String pair : of) {
            String[] parts = pair.split("=", 2);
            found.put(parts[0], parts[1]);
        }
        return found;
    }

    private static void topic(Admin admin, List<String> rest) throws Exception {
        int partitions = Integer.parseInt(rest.get(1));
        NewTopic topic = new NewTopic(rest.get(0), Optional.of(partitions), Optional.empty());
        topic.configs(pairs(rest.subList(2, rest.size())));
        admin.createTopics(List.of(topic)).all().get();
    }

    private static void set(Admin admin, List<String> rest) throws Exception {
        List<AlterConfigOp> changes = new ArrayList<>();
        pairs(rest.subList(1, rest.size())).forEach((name, value) -> changes.add(
            new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET)));
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, rest.get(0));
        admin.incrementalAlterConfigs(Map.of(topic, changes)).all().get();
    }
}
