"""Speed, memory and costs of our layers and networks beside others', measured in one run."""
